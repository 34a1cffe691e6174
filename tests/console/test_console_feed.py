"""All pages share one look per tick; a slow one misses frames and holds up no one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from serving.console.feed import Feed, Frame
from serving.errors import ConsoleFull


class Looks:
    """Frames with numbers. `hold`: while it is clear, a look takes its time."""

    def __init__(self) -> None:
        self.count, self.hold, self.fails = 0, threading.Event(), False
        self.hold.set()

    def __call__(self) -> Frame:
        self.hold.wait(5)
        if self.fails:
            raise RuntimeError("no look")
        self.count += 1
        return Frame(str(self.count).encode(), b"t%d" % self.count)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest_asyncio.fixture
async def feed(looks: Looks) -> AsyncIterator[Feed]:
    made = Feed(looks, 0.002, limit=50, linger_s=0.0, history=5)
    yield made
    looks.hold.set()
    await made.close()


async def numbers(feed: Feed, count: int) -> list[int]:
    frames, found = feed.frames(), []
    async for frame in frames:
        found.append(int(frame.whole))
        if len(found) == count:
            break
    await frames.aclose()
    return found


async def test_fifty_pages_cost_as_many_looks_as_one(feed: Feed, looks: Looks) -> None:
    found = await asyncio.gather(*(numbers(feed, 10) for _ in range(50)))
    assert all(seen == sorted(set(seen)) for seen in found), "each page sees newer and newer frames"
    assert looks.count < 60, "not one look for each page"


async def test_who_is_slow_gets_the_newest_and_nothing_waits_for_it(feed: Feed) -> None:
    slow = feed.frames()
    first = int((await anext(slow)).whole)
    assert await numbers(feed, 20), "the others go on"
    then = int((await anext(slow)).whole)
    assert then >= first + 19, "what it missed is not kept for it"
    await slow.aclose()


async def test_a_page_that_opens_later_is_given_traces_and_the_newest_frame_at_once(feed: Feed, looks: Looks) -> None:
    stays = feed.frames()
    await anext(stays)
    await numbers(feed, 10)
    looks.hold.clear()
    await asyncio.sleep(0.01)  # the look under way, if any, ends or waits
    before = looks.count
    assert await asyncio.wait_for(numbers(feed, 1), 1) == [before]
    assert feed.past == tuple(b"t%d" % n for n in range(before - 4, before + 1)), "no more than are to be remembered"
    await stays.aclose()


async def test_no_one_looks_while_no_page_is_open(feed: Feed, looks: Looks) -> None:
    await numbers(feed, 3)
    task = feed._task
    assert task is not None
    await asyncio.wait_for(task, 1)
    assert feed.past == () and feed.open == 0
    before = looks.count
    assert (await numbers(feed, 2))[0] > before, "an old frame is not shown as new"


async def test_there_is_an_end_to_pages(looks: Looks) -> None:
    feed = Feed(looks, 0.002, limit=2)
    held = [feed.frames(), feed.frames()]
    for frames in held:
        await anext(frames)
    with pytest.raises(ConsoleFull, match="2 consoles are open"):
        await anext(feed.frames())
    await held[0].aclose()
    assert await numbers(feed, 1)
    await held[1].aclose()
    await feed.close()


async def test_a_look_that_fails_is_one_frame_less(feed: Feed, looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    frames = feed.frames()
    await anext(frames)
    looks.fails = True
    while "a look at the fleet failed" not in caplog.text:
        await asyncio.sleep(0.001)
    looks.fails = False
    assert await asyncio.wait_for(anext(frames), 1)
    await frames.aclose()
