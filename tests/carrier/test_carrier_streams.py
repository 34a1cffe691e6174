"""Many requests on one connection: each gets its own answer, in order, whole, and nobody holds up the others."""

from __future__ import annotations

import asyncio
import random

import pytest
from carrier_rig import Carrier, Heard, ask, part, start

from serving.carrier import frames


async def test_a_request_arrives_as_it_was_sent(carrier: Carrier) -> None:
    seen = {}

    async def app(scope, receive, send) -> None:
        seen.update(scope, asked=await receive())
        await start(send, 201)
        await part(send, b"", False)

    carrier.app = app
    heard = await (await carrier.ask("/v1/ä b", b"\x00body"))[0].ended()
    assert (heard.status, heard.headers, heard.body, heard.error) == (201, {b"content-type": b"text/plain"}, b"", None)
    assert (seen["type"], seen["method"], seen["path"], seen["query_string"]) == ("http", "POST", "/v1/ä b", b"a=1")
    assert [tuple(each) for each in seen["headers"]] == [(b"x-one", b"1")]
    assert seen["asked"] == {"type": "http.request", "body": b"\x00body", "more_body": False}


async def test_many_streams_at_once_keep_their_order(carrier: Carrier) -> None:
    async def app(scope, receive, send) -> None:
        dice = random.Random(scope["path"])
        await start(send)
        for n in range(60):
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
            await part(send, b"%s:%d " % (scope["path"].encode(), n))
        await part(send, b"", False)

    carrier.app = app
    heard = {f"/{n}": (await carrier.ask(f"/{n}"))[0] for n in range(80)}
    for path, each in heard.items():
        await each.ended()
        assert each.body == b"".join(b"%s:%d " % (path.encode(), n) for n in range(60))
    assert len(carrier.server._links) == 1


@pytest.mark.parametrize("size", [0, 1, frames.MAX_PART, frames.MAX_PART + 1, 5 * frames.MAX_PART - 3])
async def test_a_long_body_is_cut_and_whole_again(carrier: Carrier, size: int) -> None:
    body = random.Random(size).randbytes(size)

    async def app(scope, receive, send) -> None:
        await start(send)
        await part(send, (await receive())["body"], False)

    carrier.app = app
    heard = await (await carrier.ask(body=body))[0].ended()
    assert heard.body == body
    assert all(0 < len(each) <= frames.MAX_PART for each in heard.parts)


async def test_a_long_answer_does_not_fill_the_memory_of_an_app_that_never_waits(carrier: Carrier) -> None:
    sent: list[int] = []

    async def app(scope, receive, send) -> None:
        await start(send)
        for n in range(4_000):
            await part(send, b"x" * 16_000)
            sent.append(n)
        await part(send, b"", False)

    carrier.app = app
    heard, link, number = await carrier.ask()
    await heard.until(lambda: bool(heard.parts))
    assert len(sent) < 3_000, "all of it was made before the first part arrived"
    assert len((await heard.ended()).body) == 64_000_000


async def test_hold_stops_the_app_and_go_on_lets_it_go(carrier: Carrier) -> None:
    sent: list[int] = []
    step = asyncio.Semaphore(0)

    async def app(scope, receive, send) -> None:
        await start(send)
        for n in range(100):
            await step.acquire()
            await part(send, b"%d " % n)
            sent.append(n)
        await part(send, b"", False)

    carrier.app = app
    heard, link, number = await carrier.ask()
    step.release()
    await heard.until(lambda: len(heard.parts) == 1)
    for _ in range(3):  # a gateway may say it again
        link.tell(number, frames.HOLD)
        await (await other(carrier, link)).ended()  # what came before it on the connection has been read now
        step.release()
        step.release()
        await (await other(carrier, link)).ended()
    assert len(sent) <= 2, "it went on"
    link.tell(number, frames.GO_ON)
    for _ in range(100):
        step.release()
    await heard.ended()
    assert heard.body.split() == [b"%d" % n for n in range(100)]


async def other(carrier: Carrier, link) -> Heard:
    """Another request on the same connection, which must not be held."""
    before = carrier.app

    async def app(scope, receive, send) -> None:
        if scope["path"] != "/other":
            return await before(scope, receive, send)
        await start(send)
        await part(send, b"", False)

    carrier.app, heard = app, Heard()
    link.ask(ask("/other"), heard)
    await heard.ended()
    carrier.app = before
    return heard


async def test_a_held_stream_whose_caller_leaves_ends(carrier: Carrier) -> None:
    async def app(scope, receive, send) -> None:
        await start(send)
        while True:
            await part(send, b"x")
            await asyncio.sleep(0)
            if carrier.left.is_set():
                return

    carrier.left = asyncio.Event()
    carrier.app = app
    heard, link, number = await carrier.ask()
    await heard.until(lambda: bool(heard.parts))
    link.tell(number, frames.HOLD)
    await other(carrier, link)
    link.tell(number, frames.GONE)
    carrier.left.set()
    await carrier.idle()
    assert not heard.over.is_set(), "who left is told nothing more"


async def test_gone_reaches_the_app_as_a_disconnect(carrier: Carrier) -> None:
    found = asyncio.Queue()

    async def app(scope, receive, send) -> None:
        await receive()
        await start(send)
        found.put_nowait(await receive())
        await part(send, b"too late")
        await part(send, b"", False)

    carrier.app = app
    heard, link, number = await carrier.ask()
    await heard.until(lambda: heard.status == 200)
    link.tell(number, frames.GONE)
    assert await asyncio.wait_for(found.get(), 3) == {"type": "http.disconnect"}
    await carrier.idle()
    assert heard.parts == [] and not heard.over.is_set()


async def test_after_its_answer_the_app_hears_a_disconnect(carrier: Carrier) -> None:
    """As servers of ASGI do; apps wait for it in the background."""
    found = asyncio.Queue()

    async def app(scope, receive, send) -> None:
        await receive()
        await start(send)
        await part(send, b"", False)
        found.put_nowait(await receive())

    carrier.app = app
    await (await carrier.ask())[0].ended()
    assert await asyncio.wait_for(found.get(), 3) == {"type": "http.disconnect"}


async def raises(scope, receive, send) -> None:
    raise RuntimeError("secret detail")


async def raises_late(scope, receive, send) -> None:
    await start(send)
    await part(send, b"half")
    raise RuntimeError("secret detail")


async def returns(scope, receive, send) -> None:
    await receive()


async def returns_late(scope, receive, send) -> None:
    await start(send)
    await part(send, b"half")


@pytest.mark.parametrize("app", [raises, returns])
async def test_an_app_that_fails_before_its_answer(carrier: Carrier, app) -> None:
    carrier.app = app
    heard = await (await carrier.ask())[0].ended()
    assert (heard.status, heard.error) == (500, None)
    assert b"error" in heard.body and b"secret" not in heard.body


@pytest.mark.parametrize("app", [raises_late, returns_late])
async def test_an_app_that_fails_in_its_answer(carrier: Carrier, app) -> None:
    carrier.app = app
    heard = await (await carrier.ask())[0].ended()
    assert (heard.status, heard.body) == (200, b"half")
    assert heard.error is not None


async def test_an_app_that_fails_when_its_caller_has_left(carrier: Carrier) -> None:
    async def app(scope, receive, send) -> None:
        await receive()
        await receive()
        raise RuntimeError("no one is there to hear it")

    carrier.app = app
    heard, link, number = await carrier.ask()
    await asyncio.wait_for(carrier.came.wait(), 3)
    link.tell(number, frames.GONE)
    await carrier.idle()
    assert not heard.over.is_set()
