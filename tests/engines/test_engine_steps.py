"""The step channel: the engine never waits, and nothing is lost on a slow reader."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import steps
from serving.engines.steps import Ended, Step, StepReceiver, StepSender

ENDED = st.builds(
    Ended, st.sampled_from("abcd"), st.just("finished"), st.integers(0, 9), st.just(0), st.integers(0, 9)
)
WORKS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 99), st.integers(0, 99)),
    max_size=4,
    unique_by=lambda w: w[0],
)
STEPS = st.builds(
    Step, st.integers(0, 99), st.integers(100, 199), WORKS, st.lists(ENDED, max_size=2), st.integers(0, 3)
)


def tokens(found: list[Step]) -> Counter:
    counted: Counter = Counter()
    for step in found:
        for name, count, _ in step.works:
            counted[name] += count
    return counted


@given(STEPS, STEPS, STEPS)
def test_folding_keeps_work_ends_and_span(one: Step, two: Step, three: Step) -> None:
    folded = one.fold(two).fold(three)
    parts = [one, two, three]
    assert tokens([folded]) == tokens(parts)
    assert folded.ended == one.ended + two.ended + three.ended
    assert folded.start_ns == min(p.start_ns for p in parts)
    assert folded.end_ns == max(p.end_ns for p in parts)
    assert folded.folded == sum(p.folded for p in parts) + 2
    assert len({name for name, _, _ in folded.works}) == len(folded.works)
    assert folded == one.fold(two.fold(three))  # in whatever groups


def test_a_folded_request_keeps_the_context_it_began_on() -> None:
    folded = Step(0, 1, [("a", 8, 4)], []).fold(Step(1, 2, [("a", 1, 12), ("b", 3, 7)], []))
    assert sorted(folded.works) == [("a", 9, 4), ("b", 3, 7)]


@pytest.fixture
def address() -> str:
    return f"ipc://@flotilla-test-{uuid.uuid4().hex}"


@pytest.fixture
def senders() -> Iterator[list[StepSender]]:
    opened: list[StepSender] = []
    yield opened
    for sender in opened:
        sender._socket.close(linger=0)


async def test_steps_arrive_in_order_and_whole(address: str, senders: list[StepSender]) -> None:
    receiver = StepReceiver(address)
    senders.append(sender := StepSender(address))
    sent = [Step(n, n + 1, [(f"r{n}", n, 0)], [Ended(f"r{n}", "finished", 1, 0, n)]) for n in range(1, 50)]
    try:
        for step in sent:
            sender.send(step)
        async with asyncio.timeout(5):
            assert [await anext(receiver) for _ in sent] == sent
    finally:
        receiver.close()


async def test_a_reader_that_does_not_read_costs_no_time_and_no_work(
    address: str, senders: list[StepSender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "QUEUE", 8)
    receiver = StepReceiver(address)
    senders.append(sender := StepSender(address))
    count = 20_000

    def work() -> None:
        for n in range(count):
            sender.send(Step(n, n + 1, [(f"r{n % 7}", 1, n)], []))

    engine = threading.Thread(target=work, daemon=True)  # were it to block, the test would still end
    engine.start()
    engine.join(10)
    assert not engine.is_alive(), "the engine waits for the reader"
    found: list[Step] = []
    try:
        async with asyncio.timeout(10):
            while sum(tokens(found).values()) < count:
                found.append(await anext(receiver))
                if (
                    sender._held is not None
                ):  # the engine goes on working; its next step takes the held ones along
                    sender.send(Step(count, count, [], []))
    finally:
        receiver.close()
    assert tokens(found) == {f"r{i}": len(range(i, count, 7)) for i in range(7)}
    # whether the very last send still found the channel full is chance; that some did is not
    assert sum(step.folded for step in found) > 0, "the channel never filled: the test shows nothing"
    assert all(a.end_ns <= b.start_ns for a, b in zip(found, found[1:], strict=False))
    assert (found[0].start_ns, found[-1].end_ns) == (0, count)


async def test_without_a_reader_steps_are_kept(
    address: str, senders: list[StepSender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "QUEUE", 4)
    senders.append(sender := StepSender(address))
    for n in range(100):
        sender.send(Step(n, n + 1, [("a", 1, 0)], []))
    receiver = StepReceiver(address)
    found: list[Step] = []
    try:
        async with asyncio.timeout(5):
            while tokens(found)["a"] < 100:
                found.append(await anext(receiver))
                sender.send(Step(100, 100, [], []))
    finally:
        receiver.close()
