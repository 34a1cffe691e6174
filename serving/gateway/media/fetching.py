"""Fetches one file from an allowed host, and from nowhere else.

Every hop is checked alike: scheme, host's name against the fleet file's list, and every address that the name leads to
against what is public. The connection goes to an address that was checked, not to the name once more. May not happen
in here: reading requests, keeping files, following anything on its own.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from serving.errors import MediaRefused, MediaUnavailable
from serving.fleet.media import MediaSpec
from serving.gateway.media.addresses import is_public

Resolve = Callable[[str, int], Awaitable[list[str]]]
_PLAIN = re.compile(r"[!-~]{1,2048}")  # neither space nor control characters, where parsers disagree
_PARTS_AT_ONCE = 16  # connections of one gateway
_CHUNK = 65_536
_MOVED = (301, 302, 303, 307, 308)
_SCHEMES: Mapping[str, int] = {"https": 443}
# how files of these types begin; a host may say what it likes
_BEGINS: Mapping[str, re.Pattern[bytes]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"), "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"), "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "image/bmp": re.compile(rb"BM"), "image/tiff": re.compile(rb"II\*\0|MM\0\*"),
}


async def resolved(host: str, port: int) -> list[str]:
    """Every address that a name leads to. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """Fetches for one gateway. Belongs to the event loop that uses it first."""

    def __init__(self, spec: MediaSpec, resolve: Resolve = resolved, permitted: Callable[[str], bool] = is_public,
                 schemes: Mapping[str, int] = _SCHEMES) -> None:
        """`resolve`, `permitted`: how names become addresses, and which of those are fetched from. `schemes`: with the
        one port of each."""
        self._spec, self._schemes = spec, schemes
        self._resolver = _Checked(resolve, permitted)
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> tuple[str, bytes]:
        """The file's content type and bytes. Raises: MediaRefused, MediaUnavailable."""
        at = self._checked(url)
        try:
            for _ in range(self._spec.max_redirects + 1):
                async with self._http().get(at, allow_redirects=False) as answer:
                    if answer.status not in _MOVED:
                        return await self._file(answer, at)
                    at = self._checked(self._next(answer, at))
        except (aiohttp.ClientError, OSError) as error:
            raise MediaUnavailable(at.host or "", type(error).__name__) from error
        raise MediaRefused(f"{url[:200]!r} is moved on more than {self._spec.max_redirects} times")

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, force_close=True,
                                             limit=_PARTS_AT_ONCE)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"accept": ", ".join(self._spec.types), "accept-encoding": "identity",
                         "user-agent": "flotilla"})
        return self._session

    def _checked(self, text: str) -> URL:
        """A URL that may be asked. Raises: MediaRefused."""
        if not _PLAIN.fullmatch(text) or "\\" in text:
            raise MediaRefused("a file's URL has at most 2,048 plain characters: no spaces, no control characters, "
                               "others than ASCII's percent-encoded")
        try:
            url = URL(text, encoded=True)
            host, port = url.raw_host or "", url.port
        except ValueError as error:
            raise MediaRefused(f"{text[:200]!r} is not a URL: {error}") from error
        if url.scheme not in self._schemes:
            others = " and ".join(f"{scheme}:" for scheme in self._schemes)
            raise MediaRefused(f"{text[:200]!r}: files come from data: URLs and, from hosts that are allowed, over "
                               f"{others}")
        if url.user is not None or url.password is not None or port != self._schemes[url.scheme]:
            raise MediaRefused(f"{text[:200]!r}: a file's URL has no user, no password and no port of its own")
        if not self._spec.allows(host):
            known = ", ".join(self._spec.hosts) or "none; send the file as a data: URL"
            raise MediaRefused(f"files are not fetched from {host[:100]!r}. Allowed hosts: {known}")
        return url

    @staticmethod
    def _next(answer: aiohttp.ClientResponse, at: URL) -> str:
        try:
            return str(at.join(URL(answer.headers.get("location", ""), encoded=True)))
        except ValueError as error:
            raise MediaRefused(f"{at.host!r} moves the file on to what is no URL") from error

    async def _file(self, answer: aiohttp.ClientResponse, at: URL) -> tuple[str, bytes]:
        if answer.status != 200:
            raise MediaUnavailable(at.host or "", f"HTTP {answer.status}")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in self._spec.types:
            raise MediaRefused(f"what {at.host!r} sent is {kind[:100]!r}; files may be {', '.join(self._spec.types)}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise MediaRefused(f"what {at.host!r} sent is compressed once more, and is not taken apart here")
        limit, parts, size = self._spec.max_bytes, [], 0
        if (answer.content_length or 0) > limit:
            raise MediaRefused(_too_long(self._spec))
        async for part in answer.content.iter_chunked(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise MediaRefused(_too_long(self._spec))
        data = b"".join(parts)
        begins = _BEGINS.get(kind)
        if begins is not None and not begins.match(data):
            raise MediaRefused(f"what {at.host!r} sent says that it is {kind}, and is not")
        return kind, data


def _too_long(spec: MediaSpec) -> str:
    return f"a file is longer than the limit of {spec.max_mib:g} MiB"


class _Checked(AbstractResolver):
    """Names to addresses for aiohttp, which connects to what this gives and asks no one else."""

    def __init__(self, resolve: Resolve, permitted: Callable[[str], bool]) -> None:
        self._resolve, self._permitted = resolve, permitted

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC,
                      ) -> list[ResolveResult]:
        """aiohttp's hook. Raises: MediaRefused where any of the addresses is not public: a name that leads both outside
        and inside is up to something."""
        found = await self._resolve(host, port)
        if not all(map(self._permitted, found)):
            raise MediaRefused(f"the host {host!r} leads to an address that is not of the public internet")
        return [_result(host, port, address) for address in found]

    async def close(self) -> None:
        """aiohttp's hook."""


def _result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    more: Any = {"proto": socket.IPPROTO_TCP, "flags": socket.AI_NUMERICHOST}
    return ResolveResult(hostname=host, host=address, port=port, family=family, **more)
