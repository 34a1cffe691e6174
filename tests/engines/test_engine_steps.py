"""The step channel: the engine never waits, and nothing is lost on a slow reader."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import steps
from serving.engines.steps import (
    DECODE,
    PREFILL,
    RECOMPUTE,
    Ended,
    Step,
    StepReceiver,
    StepSender,
    flags,
    phase_and_lost,
)

ENDED = st.builds(
    Ended, st.sampled_from("abcd"), st.just("finished"), st.integers(0, 9), st.just(0), st.integers(0, 9)
)
WORKS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 99), st.integers(0, 99),
              st.builds(flags, st.sampled_from([DECODE, PREFILL, RECOMPUTE]), st.integers(0, 9))),
    max_size=4,
    unique_by=lambda w: w[0],
)
STEPS = st.builds(
    Step, st.integers(0, 99), st.integers(100, 199), WORKS, st.lists(ENDED, max_size=2), st.integers(0, 3)
)
REPEATED = st.builds(
    Step, st.integers(0, 99), st.integers(100, 199), WORKS, st.lists(ENDED, max_size=2), st.just(0),
    st.lists(st.tuples(st.integers(200, 250), st.integers(250, 299)), max_size=3),
)


def tokens(found: list[Step]) -> Counter:
    counted: Counter = Counter()
    for step in found:
        for name, count, *_ in step.works:
            counted[name] += count
    return counted


def lost(found: list[Step]) -> Counter:
    return sum((Counter({work[0]: phase_and_lost(work[3])[1]}) for step in found for work in step.works), Counter())


@given(st.sampled_from([DECODE, PREFILL, RECOMPUTE]), st.integers(0, 10**6))
def test_flags_hold_phase_and_loss(phase: int, lost: int) -> None:
    assert phase_and_lost(flags(phase, lost)) == (phase, lost)


@given(STEPS, STEPS, STEPS)
def test_folding_keeps_work_ends_and_span(one: Step, two: Step, three: Step) -> None:
    folded = one.fold(two).fold(three)
    parts = [one, two, three]
    assert tokens([folded]) == tokens(parts)
    assert folded.ended == one.ended + two.ended + three.ended
    assert lost([folded]) == lost(parts)
    assert folded.start_ns == min(p.start_ns for p in parts)
    assert folded.end_ns == max(p.end_ns for p in parts)
    assert folded.folded == sum(p.folded for p in parts) + 2
    assert len({name for name, *_ in folded.works}) == len(folded.works)
    assert folded == one.fold(two.fold(three))  # in whatever groups


@given(REPEATED, REPEATED)
def test_repeated_steps_fold_as_if_they_had_been_told_one_by_one(one: Step, two: Step) -> None:
    parts = [*one.each(), *two.each()]
    assert one.fold(two) == reduce(Step.fold, parts)
    assert tokens(parts) == tokens([one] * (1 + len(one.again)) + [two] * (1 + len(two.again)))


def test_a_folded_request_keeps_the_context_it_began_on() -> None:
    folded = Step(0, 1, [("a", 8, 4, 1)], []).fold(Step(1, 2, [("a", 1, 12, 0), ("b", 3, 7, 0)], []))
    assert sorted(folded.works) == [("a", 9, 4, 1), ("b", 3, 7, 0)]


@pytest.fixture
def address() -> str:
    return f"flotilla-test-{uuid.uuid4().hex}"


class Reader:
    """A receiver and what it has taken."""

    def __init__(self, address: str) -> None:
        self.found: list[Step] = []
        self._came = asyncio.Event()
        self.receiver = StepReceiver(address, self.take)

    def take(self, step: Step) -> None:
        self.found.append(step)
        self._came.set()

    async def until(self, enough: Callable[[list[Step]], bool]) -> list[Step]:
        """What has come once it is enough."""
        async with asyncio.timeout(10):
            while not enough(self.found):
                self._came.clear()
                await self._came.wait()
        return self.found


@pytest.fixture
async def reader(address: str) -> AsyncIterator[Reader]:
    made = Reader(address)
    yield made
    made.receiver.close()


@pytest.fixture
def sender(address: str, reader: Reader) -> Iterator[StepSender]:
    made = StepSender(address)
    yield made
    made.close()


async def test_steps_arrive_in_order_and_whole(reader: Reader, sender: StepSender) -> None:
    sent = [Step(n, n + 1, [(f"r{n}", n, 0, 0)], [Ended(f"r{n}", "finished", 1, 0, n)]) for n in range(1, 50)]
    for step in sent[:10]:
        sender.send(step)  # before anyone reads
    await reader.receiver.start()
    for step in sent[10:]:
        sender.send(step)
    assert await reader.until(lambda found: len(found) >= len(sent)) == sent


async def test_engines_side_by_side_are_all_heard(address: str, reader: Reader, sender: StepSender) -> None:
    await reader.receiver.start()
    other = StepSender(address)
    sender.send(Step(0, 1, [("a", 1, 0, 0)], []))
    other.send(Step(1, 2, [("b", 1, 0, 0)], []))
    await reader.until(lambda found: len(found) == 2)
    other.close()
    sender.send(Step(2, 3, [("a", 1, 1, 0)], []))
    assert tokens(await reader.until(lambda found: len(found) == 3)) == {"a": 2, "b": 1}


@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(1, 40))
def test_messages_cut_anywhere_are_whole_again(sent: list[Step], size: int) -> None:
    wire = b"".join(len(m).to_bytes(4, "big") + m for m in map(msgspec.msgpack.encode, sent))
    found: list[Step] = []
    engine = steps._Engine(found.append, set())
    for at in range(0, len(wire), size):
        engine.data_received(wire[at : at + size])
    assert found == sent


async def test_a_reader_that_does_not_read_costs_no_time_and_no_work(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "BUFFER", 4096)
    reader = Reader(address)
    sender = StepSender(address)
    count = 20_000

    def work() -> None:
        for n in range(count):
            sender.send(Step(n, n + 1, [(f"r{n % 7}", 1, n, 0)], []))

    engine = threading.Thread(target=work, daemon=True)  # were it to block, the test would still end
    engine.start()
    await asyncio.to_thread(engine.join, 10)
    assert not engine.is_alive(), "the engine waits for the reader"
    try:
        await reader.receiver.start()
        while sum(tokens(reader.found).values()) < count:
            before = len(reader.found)
            sender.send(Step(count, count, [], []))  # the engine goes on: its next step takes the held ones along
            await reader.until(lambda found, before=before: len(found) > before)
    finally:
        reader.receiver.close()
        sender.close()
    found = [step for step in reader.found if step.works]
    assert tokens(found) == {f"r{i}": len(range(i, count, 7)) for i in range(7)}
    assert sum(step.folded for step in found) > 0, "the channel never filled: the test shows nothing"
    assert all(a.end_ns <= b.start_ns for a, b in zip(found, found[1:], strict=False))
    assert (found[0].start_ns, found[-1].end_ns) == (0, count)


async def test_a_step_that_cannot_be_booked_does_not_stop_the_others(address: str) -> None:
    taken: list[Step] = []

    def take(step: Step) -> None:
        if step.start_ns == 1:
            raise KeyError("no")
        taken.append(step)

    receiver = StepReceiver(address, take)
    await receiver.start()
    sender = StepSender(address)
    try:
        for n in range(3):
            sender.send(Step(n, n + 1, [], []))
        async with asyncio.timeout(5):
            while len(taken) < 2:
                await asyncio.sleep(0)
    finally:
        receiver.close()
        sender.close()
    assert [step.start_ns for step in taken] == [0, 2]


async def test_what_an_engine_did_while_no_one_read_reaches_the_next_reader(
        reader: Reader, sender: StepSender, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_AGAIN_S", 0.0)
    await reader.receiver.start()
    sender.send(Step(0, 1, [], []))
    await reader.until(bool)
    reader.receiver.close()
    async with asyncio.timeout(5):
        while reader.receiver._engines:
            await asyncio.sleep(0)
    for n in range(1000):
        sender.send(Step(n, n + 1, [("r", 1, 0, 0)], [Ended(f"r{n}", "finished", 1, 0, 1)] if n % 100 == 0 else []))
    assert sender._held is not None and len(sender._held.works) == 1, "it is folded: what waits stays small"
    after = Reader(address)
    await after.receiver.start()
    try:
        sender.send(Step(1000, 1001, [("r", 1, 0, 0)], []))
        (told,) = await after.until(bool)
    finally:
        after.receiver.close()
    assert tokens([told]) == {"r": 1001}
    assert (told.start_ns, told.end_ns, told.folded, len(told.ended)) == (0, 1001, 1000, 10)


def test_an_engine_without_a_replica_says_so(address: str) -> None:
    with pytest.raises(OSError):
        StepSender(address)
