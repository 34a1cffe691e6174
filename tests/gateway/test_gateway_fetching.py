"""What gateways fetch and what they refuse to: schemes, hosts, addresses, redirects, types, sizes, time (SSRF)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from file_host import PNG, FileHost, breaks, endless, moves, sends, trickles

from serving.errors import MediaRefused, MediaUnavailable, RequestError
from serving.fleet.media import MediaSpec
from serving.gateway.media.addresses import is_public
from serving.gateway.media.fetching import Fetcher, resolved

HOST, INSIDE, ELSEWHERE = "pictures.example", "inside.pictures.example", "other.example"
SPEC = MediaSpec(hosts=(HOST, f"*.{HOST}"), max_mib=0.1, timeout_s=0.3, max_redirects=2)
PUBLIC = "93.184.216.34"
Make = Callable[..., Fetcher]


@pytest_asyncio.fixture
async def host() -> AsyncIterator[FileHost]:
    made = await FileHost({"/a.png": sends(), "/secret": sends(b"secret", kind="text/plain")}).start()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def make(host: FileHost) -> AsyncIterator[Make]:
    """Fetchers for which loopback is as good as public, but for names that lead elsewhere."""
    made: list[Fetcher] = []

    def fetcher(leads: dict[str, list[str]] | None = None, spec: MediaSpec = SPEC, **more: Any) -> Fetcher:
        async def resolve(name: str, port: int) -> list[str]:
            return (leads or {}).get(name, ["127.0.0.1"])

        settings: dict[str, Any] = {"permitted": lambda address: address == "127.0.0.1" or is_public(address),
                                    "schemes": {"http": host.port}}
        made.append(Fetcher(spec, resolve, **settings | more))
        return made[-1]

    yield fetcher
    for each in made:
        await each.close()


def at(host: FileHost, path: str = "/a.png", name: str = HOST) -> str:
    return f"http://{name}:{host.port}{path}"


async def test_a_file_of_an_allowed_host(host: FileHost, make: Make) -> None:
    fetcher = make()
    assert await fetcher.fetch(at(host)) == ("image/png", PNG)
    assert await fetcher.fetch(at(host, name=f"a.{HOST}")) == ("image/png", PNG)
    assert host.asked == [(f"{HOST}:{host.port}", "/a.png"), (f"a.{HOST}:{host.port}", "/a.png")]
    for header in (b"cookie", b"authorization", b"referer", b"flt_"):
        assert header not in host.heads[0].lower(), "nothing of the caller or of another file goes along"


# -- what is refused before anything is asked


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "FILE:///etc/passwd", "file://pictures.example/etc/passwd", "ftp://pictures.example/a",
    "gopher://pictures.example:70/_x", "javascript:alert(1)", "//pictures.example/a.png", "/etc/passwd", "", "a.png",
    "http://", "http:///a", "unix:/run/docker.sock", "blob:x", "https://pictures.example/a.png",
    "http://pictures.example/a.png", "http://{host}:22/", "http://user@{host}:{port}/a.png",
    "http://user:pw@{host}:{port}/a.png", "http://{host}:{port}@127.0.0.1/", "http://127.0.0.1:{port}/a.png",
    "http://2130706433:{port}/a.png", "http://0x7f000001:{port}/a.png", "http://0177.0.0.1:{port}/a.png",
    "http://127.1:{port}/a.png", "http://[::1]:{port}/a.png", "http://[::ffff:127.0.0.1]:{port}/a.png",
    "http://[0:0:0:0:0:ffff:7f00:1]:{port}/", "http://localhost:{port}/a.png", "http://169.254.169.254:{port}/latest",
    "http://other.example:{port}/a.png", "http://{host}.evil.example:{port}/a.png", "http://evil{host}:{port}/a.png",
    "http://{host}.:{port}/a.png", "http://evil.example:{port}/{host}", "http://evil.example:{port}#@{host}/",
    "http://evil.example:{port}?@{host}/", "http://{host}\\@evil.example:{port}/", "http://evil.example\\.{host}:{port}/",
    " http://{host}:{port}/a.png", "http://{host}:{port}/a b.png", "http://{host}:{port}/a\r\nx: y", "http://{host}\t:1/",
    "http://\u24df\u24d8ctures.example:{port}/a.png", "http://pictures\u3002example:{port}/", "http://{host}:{port}/\u00e4",
    "http://{host}:99999/a.png", "http://{host}:x/a.png", "http://[::1/", "http://{host}:{port}/" + "a" * 2048,
])
async def test_a_url_that_is_not_asked(host: FileHost, make: Make, url: str) -> None:
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    fetcher = Fetcher(SPEC, resolve, lambda address: True, {"http": host.port})
    with pytest.raises(MediaRefused):
        await fetcher.fetch(url.replace("{host}", HOST).replace("{port}", str(host.port)))
    assert (asked, host.connections) == ([], 0)
    await fetcher.close()


async def test_only_https_unless_a_test_says_otherwise() -> None:
    fetcher = Fetcher(SPEC)
    for url in (f"http://{HOST}/a.png", f"http://{HOST}:443/a.png", f"https://{HOST}:8443/a.png", "file:///etc/passwd"):
        with pytest.raises(MediaRefused):
            await fetcher.fetch(url)


async def test_without_hosts_nothing_is_fetched(host: FileHost, make: Make) -> None:
    with pytest.raises(MediaRefused, match="Allowed hosts: none; send the file as a data: URL"):
        await make(spec=MediaSpec()).fetch(at(host))
    assert host.connections == 0


# -- addresses


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "192.0.0.170", "192.88.99.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::", "", "nonsense",
    "127.1", "2130706433", "0x7f.0.0.1", "pictures.example",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public(host: FileHost, make: Make, address: str) -> None:
    assert not is_public(address)
    fetcher = make({HOST: [address]}, permitted=is_public)
    with pytest.raises(MediaRefused, match="not of the public internet"):
        await fetcher.fetch(at(host))
    with pytest.raises(MediaRefused, match="not of the public internet"):
        await make({HOST: [PUBLIC, address]}, permitted=is_public).fetch(at(host))
    assert host.connections == 0


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "::ffff:8.8.8.8", "2606:4700:4700::1111"])
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


async def test_a_name_that_changes_its_mind_is_asked_once(host: FileHost) -> None:
    """DNS rebinding: what was checked is what is connected to."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    checked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        return answers.pop(0)

    fetcher = Fetcher(SPEC, resolve, lambda a: checked.append(a) or a == "127.0.0.1", {"http": host.port})
    assert await fetcher.fetch(at(host)) == ("image/png", PNG)
    assert (checked, len(answers)) == (["127.0.0.1"], 1)
    with pytest.raises(MediaRefused, match="not of the public internet"):
        await fetcher.fetch(at(host))  # the next file is a matter of its own, and checked anew
    assert host.connections == 1
    await fetcher.close()


async def test_a_name_that_leads_nowhere(host: FileHost, make: Make) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        raise socket.gaierror("no such name")

    fetcher = Fetcher(SPEC, resolve, lambda a: True, {"http": host.port})
    with pytest.raises(MediaUnavailable, match=HOST):
        await fetcher.fetch(at(host))
    await fetcher.close()


async def test_the_systems_resolver_gives_every_address() -> None:
    assert "127.0.0.1" in await resolved("localhost", 443)


# -- redirects


@pytest.mark.parametrize("to", [
    "http://127.0.0.1:{port}/secret", "http://[::1]:{port}/secret", "http://2130706433:{port}/secret",
    "http://other.example:{port}/a.png", "//other.example:{port}/a.png", "https://pictures.example/a.png",
    "file:///etc/passwd", "http://{host}:22/", "http://user@{host}:{port}/a.png", "http://[", "gopher://x",
    "http://\u00e4.example/", "ftp://{host}/a"])
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_checked_like_the_first_url(host: FileHost, make: Make, to: str, status: str) -> None:
    target = to.replace("{port}", str(host.port)).replace("{host}", HOST)
    host.answers["/moved"] = moves(target.encode("utf-8").decode("latin-1"), status)
    with pytest.raises(MediaRefused):
        await make().fetch(at(host, "/moved"))
    assert [path for _, path in host.asked] == ["/moved"]


async def test_a_redirect_to_an_allowed_host_that_leads_inside(host: FileHost, make: Make) -> None:
    host.answers["/moved"] = moves(at(host, "/secret", INSIDE))
    with pytest.raises(MediaRefused, match="not of the public internet"):
        await make({INSIDE: ["10.0.0.1"]}).fetch(at(host, "/moved"))
    assert host.connections == 1


async def test_redirects_that_are_right_are_followed_up_to_the_limit(host: FileHost, make: Make) -> None:
    host.answers |= {"/1": moves("/2"), "/2": moves(at(host, "/a.png", f"a.{HOST}")), "/0": moves("/1"),
                     "/loop": moves("/loop")}
    assert await make().fetch(at(host, "/1")) == ("image/png", PNG)
    for path in ("/0", "/loop"):
        with pytest.raises(MediaRefused, match="more than 2 times"):
            await make().fetch(at(host, path))


# -- what comes


@pytest.mark.parametrize(("answer", "kind", "said"), [
    (sends(kind="text/html"), MediaRefused, "'text/html'"), (sends(kind="image/svg+xml"), MediaRefused, "svg"),
    (sends(kind=""), MediaRefused, "files may be image/png"), (sends(b"<html>" * 20), MediaRefused, "and is not"),
    (sends(b""), MediaRefused, "and is not"), (sends(kind="image/jpeg"), MediaRefused, "says that it is image/jpeg"),
    (sends(content_encoding="gzip"), MediaRefused, "compressed"), (sends(bytes(200_000)), MediaRefused, "0.1 MiB"),
    (endless, MediaRefused, "0.1 MiB"), (breaks, MediaUnavailable, HOST),
    (sends(status="404 Not Found"), MediaUnavailable, "HTTP 404"), (sends(status="206 Part"), MediaUnavailable, "206"),
    (sends(status="500 Oh"), MediaUnavailable, "HTTP 500"),
])
async def test_what_is_not_taken(host: FileHost, make: Make, answer: Any, kind: type[RequestError], said: str) -> None:
    host.answers["/x"] = answer
    async with asyncio.timeout(3):
        with pytest.raises(kind, match=said):
            await make().fetch(at(host, "/x"))


async def test_a_body_that_trickles_ends_with_the_callers_patience(host: FileHost, make: Make) -> None:
    """The limit of time is over all files of a request, and stands where they are joined."""
    host.answers["/x"] = trickles
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SPEC.timeout_s):
            await make().fetch(at(host, "/x"))


async def test_no_proxy_of_the_environment_is_used(host: FileHost, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await make().fetch(at(host)))[0] == "image/png"


async def test_many_at_once_are_few_connections(host: FileHost, make: Make) -> None:
    fetcher = make()
    found = await asyncio.gather(*(fetcher.fetch(at(host)) for _ in range(40)))
    assert found == [("image/png", PNG)] * 40
