"""Puts the files that a request names by URL into the request itself."""

from __future__ import annotations

import asyncio
import base64

import msgspec

from serving.errors import MalformedRequest, MediaRefused, MediaUnavailable
from serving.fleet.media import MediaSpec
from serving.gateway.media import parts
from serving.gateway.ports import MediaSource

_AT_ONCE = 4  # files of one request
Members = dict[str, msgspec.Raw]


class Inlining:
    """By the fleet file's rules. `source`: fetches what is not there yet."""

    def __init__(self, spec: MediaSpec, source: MediaSource) -> None:
        self._spec, self._source = spec, source

    async def apply(self, members: Members) -> bool:
        """Change the members of a JSON body that name files; whether any was changed.

        Raises: MediaRefused, MediaUnavailable, MalformedRequest.
        """
        decoded = {name: _decoded(name, members[name]) for name in parts.MEMBERS
                   if name in members and parts.mentioned(bytes(members[name]))}
        found = {name: list(parts.slots(value)) for name, value in decoded.items()}
        slots = [slot for each in found.values() for slot in each]
        if len(slots) > self._spec.max_parts:
            raise MediaRefused(f"the request names {len(slots)} files; the most is {self._spec.max_parts}")
        missing = list(dict.fromkeys(holder[key] for holder, key in slots if not self._is_data(holder[key])))
        if not missing:
            return False
        here = await self._all(missing)
        for name, its in found.items():
            changed = [(holder, key) for holder, key in its if holder[key] in here]
            for holder, key in changed:
                holder[key] = here[holder[key]]
            if changed:
                members[name] = msgspec.Raw(msgspec.json.encode(decoded[name]))
        return True

    def _is_data(self, url: str) -> bool:
        """Whether a URL carries its file. Raises: MediaRefused for one that is too long."""
        if url[:5].lower() != "data:":
            return False
        if len(url) * 3 // 4 > self._spec.max_bytes + 256:
            raise MediaRefused(f"a file in a data: URL is longer than the limit of {self._spec.max_mib:g} MiB")
        return True

    async def _all(self, urls: list[str]) -> dict[str, str]:
        """Data URLs by the URLs that they stand for."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(url: str) -> str:
            async with gate:
                kind, data = await self._source.fetch(url)
            encoded = await asyncio.to_thread(base64.b64encode, data)
            return f"data:{kind};base64,{encoded.decode()}"

        try:
            async with asyncio.timeout(self._spec.timeout_s), asyncio.TaskGroup() as group:
                tasks = {url: group.create_task(one(url)) for url in urls}
        except TimeoutError as error:
            raise MediaUnavailable("", f"not within {self._spec.timeout_s:g} s") from error
        except ExceptionGroup as group_of:
            raise group_of.exceptions[0] from None
        return {url: task.result() for url, task in tasks.items()}


def _decoded(name: str, raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the request's {name} cannot be read: {error}") from error
