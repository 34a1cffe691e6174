"""A replica's books: every nano-dollar of its time is on someone's account, whatever the requests do."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import pytest
from engine_samples import ONE, TWO, Ledger, Replica, engine_id, over
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import books as module
from serving.engines.books import UNKNOWN_TENANT
from serving.engines.steps import RECOMPUTE, Ended, Step, flags
from serving.errors import SpoolFull
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine
from serving.fleet.prices import ApiPrice, Comparison
from serving.fleet.records import Amounts, Tokens


@pytest.fixture
def replica() -> Replica:
    return Replica().ready()


async def test_a_request_pays_for_its_steps(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], lasts_ns=700)
    replica.step([engine_id(ONE)], [over(engine_id(ONE), prompt=8, cached=4, completion=2)], lasts_ns=300)
    assert await replica.books.settled(ONE) == 1_000
    replica.books.leave(ONE)
    reading = replica.books.reading()
    (charge,), (total,) = reading.charges, reading.totals
    assert (charge.tenant, charge.outcome, charge.amounts.work, charge.tokens) == (
        "demo",
        "finished",
        1_000,
        Tokens(8, 4, 2),
    )
    assert (total.tenant, total.amounts, total.requests) == ("demo", Amounts(1_000), 1)
    assert total.tokens == Tokens(8, 4, 2)


async def test_prompts_that_wait_are_told_until_no_one_is_there(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)])
    assert replica.books.told.waiting_tokens == 0
    replica.books.take(Step(replica.now_ns, replica.now_ns + 1, [], [], unread=900))
    replica.step([engine_id(ONE)])  # has not counted
    assert replica.books.told.waiting_tokens == 900
    first, second = Step(1, 2, [], [], unread=5), Step(2, 3, [], [])
    assert (first.fold(second).unread, second.fold(first).unread) == (5, 5)
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    replica.books.leave(ONE)
    assert replica.books.told.waiting_tokens == 0


async def test_settled_waits_for_the_last_step(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)])
    waiting = asyncio.ensure_future(replica.books.settled(ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    assert await waiting == 2_000


async def test_settled_gives_what_is_known_when_the_last_step_is_late(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)])
    assert await replica.books.settled(ONE, timeout_s=0.02) == 1_000


async def test_settled_does_not_wait_for_a_request_that_is_not_there(replica: Replica) -> None:
    assert await asyncio.wait_for(replica.books.settled("flo-" + "9" * 32, timeout_s=60), 1) is None


async def test_warm_up_is_cold_start_and_is_not_waited_for() -> None:
    replica = Replica()
    replica.books.admit("warm-up", "-")
    replica.step(["cmpl-warm-up-0"], [over("cmpl-warm-up-0")])
    assert await asyncio.wait_for(replica.books.settled("warm-up", timeout_s=60), 1) == 0
    replica.books.leave("warm-up")
    reading = replica.ready().books.reading()
    assert reading.charges == ()
    assert reading.source.cold_nanousd >= 1_000
    assert reading.source.ready


async def test_n_answers_are_one_request(replica: Replica) -> None:
    first, second = engine_id(ONE, "0_"), engine_id(ONE, "1_")
    replica.books.admit(ONE, "demo")
    replica.step([first, second])
    replica.step([second], [over(first)])
    waiting = asyncio.ensure_future(replica.books.settled(ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    replica.step([second], [over(second)])
    assert await waiting == 3_000
    (charge,) = replica.books.reading().charges
    assert (charge.amounts.work, charge.tokens, charge.outcome) == (3_000, Tokens(16, 0, 4), "finished")


async def test_a_second_answer_that_begins_after_the_first_ended_is_waited_for(replica: Replica) -> None:
    first, second = engine_id(ONE, "0_"), engine_id(ONE, "1_")
    replica.books.admit(ONE, "demo")
    replica.step([first], [over(first)])  # the engine was too full to begin both
    replica.step([second])
    waiting = asyncio.ensure_future(replica.books.settled(ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    replica.step([second], [over(second)])
    assert await waiting == 3_000


async def test_a_request_whose_next_part_waits_long_is_not_forgotten(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    ledger, (first, second) = Ledger(), (engine_id(ONE, "0_"), engine_id(ONE, "1_"))
    replica.books.admit(ONE, "demo")
    replica.step([first], [over(first)])
    ledger.write(replica.books.reading())
    replica.books.sweep()
    replica.step([second], [over(second)])
    ledger.write(replica.books.reading())
    assert ledger.charges[ONE].tenant == "demo"
    assert ledger.charges[ONE].amounts.work == 2_000
    assert ledger.residual == 0


@pytest.mark.parametrize(
    ("outcome", "bucket"), [("finished", "direct"), ("aborted", "waste"), ("failed", "waste")]
)
async def test_work_that_no_one_received_is_waste(replica: Replica, outcome: str, bucket: str) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], [over(engine_id(ONE), outcome)])
    replica.books.leave(ONE)
    (total,) = replica.books.reading().totals
    assert (getattr(total.amounts, bucket), total.amounts.work, total.requests) == (1_000, 1_000, 1)
    assert total.unfinished == (bucket == "waste")


async def test_a_step_that_was_under_way_at_the_end_adds_only_what_is_new(replica: Replica) -> None:
    name, ledger = engine_id(ONE), Ledger()
    replica.books.admit(ONE, "demo")
    replica.step([name], [over(name)])
    replica.books.leave(ONE)
    ledger.write(replica.books.reading())
    replica.step([name])
    ledger.write(replica.books.reading())
    total = ledger.totals["demo"]
    assert (total.amounts.direct, total.requests, total.tokens) == (2_000, 1, Tokens(8, 0, 2))
    assert (ledger.charges[ONE].amounts.work, ledger.charges[ONE].outcome) == (2_000, "finished")
    assert await asyncio.wait_for(replica.books.settled(ONE, timeout_s=60), 1) == 2_000
    assert ledger.residual == 0


async def test_ended_requests_are_forgotten_and_their_cost_is_not(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    for name in (ONE, TWO):
        replica.books.admit(name, "demo")
        replica.step([engine_id(name)], [over(engine_id(name))])
        replica.step([engine_id(name)])  # the step under way must not keep it alive
        replica.books.leave(name)
        await replica.books.write()
    assert (replica.books._open, replica.books._meter.charges) == ({}, {})
    assert replica.written[-1].totals[0].amounts.work == 4_000
    assert replica.written[-1].totals[0].requests == 2


async def test_what_changes_while_a_reading_is_written_is_not_forgotten(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    ledger, name = Ledger(), engine_id(ONE)

    def write(reading) -> None:
        ledger.write(reading)
        if len(replica.written) == 0:
            replica.written.append(reading)
            replica.step([name])  # the step that was under way when the request ended

    replica.books._write = write
    replica.books.admit(ONE, "demo")
    replica.step([name], [over(name)])
    replica.books.leave(ONE)
    await replica.books.write()
    await replica.books.write()
    assert (ledger.charges[ONE].tenant, ledger.charges[ONE].amounts.work) == ("demo", 2_000)
    assert ledger.residual == 0


async def test_a_request_that_never_reached_the_engine_is_forgotten(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    replica.books.admit(ONE, "demo")
    await replica.books.write()
    assert ONE in replica.books._open
    replica.books.leave(ONE)
    await replica.books.write()
    assert ONE not in replica.books._open


async def test_work_that_came_past_the_gateway_is_no_tenants(replica: Replica) -> None:
    replica.step(["stray"], [over("stray")])
    (charge,) = replica.books.reading().charges
    assert (charge.request_id, charge.tenant, charge.amounts.work) == ("stray", UNKNOWN_TENANT, 1_000)


async def test_a_reading_has_what_changed_since_the_last(replica: Replica) -> None:
    for name in (ONE, TWO):
        replica.books.admit(name, "demo")
    replica.step([engine_id(ONE)])
    assert [c.request_id for c in replica.books.reading().charges] == [ONE]
    replica.step([engine_id(TWO)])
    assert [c.request_id for c in replica.books.reading().charges] == [TWO]
    assert replica.books.reading().charges == ()


async def test_what_could_not_be_written_is_in_the_next_reading(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    lost = replica.books.reading()
    replica.books.unread(lost)
    again = replica.books.reading()
    assert [c.amounts.work for c in again.charges] == [c.amounts.work for c in lost.charges] == [1_000]
    assert again.totals == lost.totals


async def test_a_failing_ledger_loses_nothing(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    ledger, down = Ledger(), True

    def write(reading) -> None:
        if down:
            raise OSError("the disk is full")
        ledger.write(reading)

    replica.books._write = write
    for name in (ONE, TWO):
        replica.books.admit(name, "demo")
        replica.step([engine_id(name)], [over(engine_id(name))])
        replica.books.leave(name)
        await replica.books.write()
    down = False
    await replica.books.write()
    assert {name: c.amounts.work for name, c in ledger.charges.items()} == {ONE: 1_000, TWO: 1_000}
    assert ledger.residual == 0


async def test_readings_are_written_one_after_the_other(replica: Replica) -> None:
    """Were the last reading written while an older one waits for the database, the older would replace it."""
    order, first, go = [], threading.Event(), threading.Event()

    def write(reading) -> None:
        if not first.is_set():
            first.set()
            go.wait(5)
        order.append(reading.source.ended)

    replica.books._write = write
    older = asyncio.ensure_future(replica.books.write())
    await asyncio.to_thread(first.wait, 5)
    last = asyncio.ensure_future(replica.books.close())
    await asyncio.wait({last}, timeout=0.1)
    go.set()
    await asyncio.gather(older, last)
    assert order == [False, True]


async def test_the_last_reading_bills_until_the_end(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")  # its caller hangs on
    await replica.books.close()
    replica_row = replica.written[-1].source
    assert replica_row.ended
    assert replica.books._meter.seen_ns >= replica.now_ns
    assert replica_row.elapsed_ns == replica_row.cold_ns + replica_row.idle_ns + replica_row.busy_ns


async def test_idle_time_is_booked_only_when_no_request_is_here(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    before = replica.books.reading().source.elapsed_ns
    assert replica.books.reading().source.elapsed_ns == before
    replica.books.leave(ONE)
    assert replica.books.reading().source.elapsed_ns > before


async def test_the_cost_of_a_stored_answer_outlives_its_request(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_S", -1.0)
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    names = [f"flo-{n:032x}" for n in range(4)]
    for n, name in enumerate(names):
        replica.books.admit(name, "demo", stored=n > 0)
        replica.step([engine_id(name)], [over(engine_id(name))], lasts_ns=100 * (n + 1))
        replica.books.leave(name)
        replica.books.reading()
        replica.books.sweep()
    assert replica.books._open == {} and replica.books._lines == {}
    assert [await replica.books.settled(name) for name in names] == [None, None, 300, 400]


async def test_a_replica_is_busy_while_anyone_or_anything_is_at_work(replica: Replica) -> None:
    books = replica.books
    assert not books.busy
    books.admit(ONE, "demo")
    assert books.busy and books.idle_s < 0.01
    replica.step([engine_id(ONE)])
    books.leave(ONE)
    assert books.busy, "its work goes on in the background"
    replica.step([], [over(engine_id(ONE))])
    assert not books.busy
    idle = books.idle_s
    await asyncio.sleep(0.01)
    assert books.idle_s >= idle + 0.01
    before = books.idle_s
    books.admit(TWO, "demo")  # one that needs no engine
    books.leave(TWO)
    assert books.idle_s < before


NAMES = [f"flo-{n:032x}" for n in range(4)]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from(NAMES)),
        st.tuples(st.just("leave"), st.sampled_from(NAMES)),
        st.tuples(st.just("step"), st.lists(st.sampled_from(NAMES), unique=True, max_size=4)),
        st.tuples(st.just("end"), st.sampled_from(NAMES), st.sampled_from(["finished", "aborted", "failed"])),
        st.tuples(st.just("write"), st.booleans()),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_whatever_happens_the_ledger_adds_up_and_totals_only_grow(actions) -> None:
    replica, ledger, grown, inside = Replica().ready(), Ledger(), {}, []
    for what, *args in actions:
        if what == "admit":
            replica.books.admit(args[0], "demo")
            inside.append(args[0])
        elif what == "leave" and args[0] in inside:
            inside.remove(args[0])
            replica.books.leave(args[0])
        elif what == "step":
            replica.step([engine_id(name) for name in args[0]])
        elif what == "end":
            replica.step([], [over(engine_id(args[0]), args[1])])
        elif what == "write":
            reading = replica.books.reading()
            if args[0]:
                ledger.write(reading)
                replica.books.sweep()
                assert ledger.residual == 0
            else:
                replica.books.unread(reading)
        for key, total in ledger.totals.items():
            for bucket in ("direct", "waste", "idle", "cold_start"):
                assert getattr(total.amounts, bucket) >= grown.get((key, bucket), 0)
                grown[key, bucket] = getattr(total.amounts, bucket)
    ledger.write(replica.books.reading())
    assert ledger.residual == 0
    ended = {n: c.amounts.work for n, c in ledger.charges.items() if c.outcome != "running"}
    assert sum(t.amounts.work for t in ledger.totals.values()) == sum(ended.values())


async def test_the_answer_says_all_that_the_request_is_charged_with() -> None:
    replica = Replica(loading=LoadingPolicy(max_loading=2.0)).ready()
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    told = await replica.books.settled(ONE)
    (charge,) = replica.books.reading().charges
    assert charge.amounts.work == 1_000
    assert charge.amounts.idle + charge.amounts.cold_start == 2_000, "its replica took long to start: as much as may be"
    assert told == charge.amounts.loaded == 3_000


async def test_rows_say_what_the_same_tokens_cost_elsewhere() -> None:
    price = ApiPrice("api", Decimal("2e-6"), Decimal("8e-6"), Decimal("1e-6"))
    replica = Replica(compared=(Comparison("api", "frontier", price),)).ready()
    for name in (ONE, TWO):
        replica.books.admit(name, "demo")
        replica.step([engine_id(name)], [over(engine_id(name), prompt=10, cached=4, completion=2)])
    reading = replica.books.reading()
    assert [c.compared for c in reading.charges] == [{"api": 12_000 + 4_000 + 16_000}] * 2
    assert reading.totals[0].compared == {"api": 64_000}


async def test_waste_within_a_request_that_was_answered(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    start = replica.now_ns
    marks = flags(RECOMPUTE, 8)
    replica.books.take(Step(start, start + 1_000, [(engine_id(ONE), 8, 0, marks)],
                            [replace_preemptions(over(engine_id(ONE)), 1)]))
    (charge,) = replica.books.reading().charges
    assert charge.amounts == Amounts(0, 1_000)
    assert (charge.recomputed, charge.preemptions, charge.segments[0].phase) == (8, 1, "recompute")


@pytest.mark.parametrize("ready", [True, False])
async def test_steps_told_together_are_booked_as_if_told_one_by_one(ready: bool) -> None:
    def booked(together: bool) -> object:
        replica = Replica()
        if ready:
            replica.ready()
        for name in (ONE, TWO):
            replica.books.admit(name, "demo")
        start = replica.now_ns
        step = Step(start, start + 1_000, [(engine_id(ONE), 1, 8, 0), (engine_id(TWO), 1, 90, 0)],
                    [over(engine_id(ONE))], 0, [(start + 1_500, start + 2_000), (start + 2_100, start + 4_000)])
        for one in [step] if together else step.each():
            replica.books.take(one)
        return {c.request_id: (c.amounts, c.segments) for c in replica.books.reading().charges}

    assert booked(True) == booked(False) and bool(booked(True)) == ready


def replace_preemptions(ended: Ended, count: int) -> Ended:
    return Ended(ended.engine_id, ended.outcome, ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens,
                 count)


async def test_readings_are_numbered_and_intervals_are_told_again_when_lost(replica: Replica) -> None:
    lost = replica.books.reading()
    replica.books._meter.account.reprice(2e9, PriceLine.fixed(5))  # the next interval begins now, at another price
    replica.books.unread(lost)
    again = replica.books.reading()
    assert again.number == lost.number + 1
    assert {i.starts_at for i in lost.intervals} <= {i.starts_at for i in again.intervals}


async def test_when_nothing_can_be_kept_a_replica_refuses_until_it_can(replica: Replica) -> None:
    ledger, full = Ledger(), True

    def write(reading) -> None:
        if full:
            raise SpoolFull("full")
        ledger.write(reading)

    replica.books._write = write
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    replica.books.leave(ONE)
    await replica.books.write()
    assert not replica.books.accepting
    full = False
    await replica.books.write()
    assert replica.books.accepting
    assert ledger.charges[ONE].amounts.work == 1_000 and ledger.residual == 0


async def test_or_it_serves_on_unmetered_and_still_adds_up() -> None:
    replica, ledger, full = Replica(refuses=False).ready(), Ledger(), False

    def write(reading) -> None:
        if full:
            raise SpoolFull("full")
        ledger.write(reading)

    replica.books._write = write
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)])
    await replica.books.write()  # a row of it is there: it stays one
    full = True
    for n in range(100):
        name = f"flo-{n:032x}"
        replica.books.admit(name, "demo")
        replica.step([engine_id(name), engine_id(ONE)], [over(engine_id(name))])
        replica.books.leave(name)
        await replica.books.write()
    assert len(replica.books._open) <= 2, "memory stays flat"
    full = False
    replica.step([], [over(engine_id(ONE))])
    replica.books.leave(ONE)
    await replica.books.write()
    assert replica.books.accepting
    assert ledger.source.unmetered == 100
    assert set(ledger.charges) == {ONE, "unmetered:replica-1:demo"}
    assert ledger.charges["unmetered:replica-1:demo"].tokens == Tokens(800, 0, 200)
    assert ledger.totals["demo"].requests == 101
    assert ledger.residual == 0


async def test_an_engine_that_tells_no_steps_is_billed_by_who_was_there() -> None:
    replica = Replica(windowed=True).ready()
    books, ledger = replica.books, Ledger()
    books.admit(ONE, "demo")
    books.admit(TWO, "other")
    told = await books.settled(ONE)
    books.leave(ONE, "finished", Tokens(5, 0, 7))
    books.leave(TWO, "aborted")
    ledger.write(books.reading())
    one, two = ledger.charges[ONE], ledger.charges[TWO]
    assert (one.method, two.method, ledger.source.method) == ("window", "window", "window")
    assert 0 < told <= one.amounts.direct
    assert one.tokens == Tokens(5, 0, 7)
    assert two.amounts.direct == 0 and two.amounts.waste > 0
    assert ledger.source.fit is None
    assert ledger.residual == 0
