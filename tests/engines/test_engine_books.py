"""A replica's books: every nano-dollar of its time is on someone's account, whatever the requests do."""

from __future__ import annotations

import asyncio
import threading

import pytest
from engine_samples import ONE, TWO, Ledger, Replica, engine_id, over
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import books as module
from serving.engines.books import UNKNOWN_TENANT
from serving.fleet.records import Tokens


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
    assert (charge.tenant, charge.outcome, charge.nanousd, charge.tokens) == (
        "demo",
        "finished",
        1_000,
        Tokens(8, 4, 2),
    )
    assert (total.tenant, total.bucket, total.nanousd, total.requests) == ("demo", "direct", 1_000, 1)
    assert total.tokens == Tokens(8, 4, 2)


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
    assert reading.replica.cold_nanousd >= 1_000
    assert reading.replica.ready


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
    assert (charge.nanousd, charge.tokens, charge.outcome) == (3_000, Tokens(16, 0, 4), "finished")


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
    assert ledger.charges[ONE].nanousd == 2_000
    assert ledger.residual == 0


@pytest.mark.parametrize(
    ("outcome", "bucket"), [("finished", "direct"), ("aborted", "waste"), ("failed", "waste")]
)
async def test_work_that_no_one_received_is_waste(replica: Replica, outcome: str, bucket: str) -> None:
    replica.books.admit(ONE, "demo")
    replica.step([engine_id(ONE)], [over(engine_id(ONE), outcome)])
    replica.books.leave(ONE)
    (total,) = replica.books.reading().totals
    assert (total.bucket, total.nanousd, total.requests) == (bucket, 1_000, 1)


async def test_a_step_that_was_under_way_at_the_end_adds_only_what_is_new(replica: Replica) -> None:
    name, ledger = engine_id(ONE), Ledger()
    replica.books.admit(ONE, "demo")
    replica.step([name], [over(name)])
    replica.books.leave(ONE)
    ledger.write(replica.books.reading())
    replica.step([name])
    ledger.write(replica.books.reading())
    total = ledger.totals["demo", "direct"]
    assert (total.nanousd, total.requests, total.tokens) == (2_000, 1, Tokens(8, 0, 2))
    assert (ledger.charges[ONE].nanousd, ledger.charges[ONE].outcome) == (2_000, "finished")
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
    assert replica.written[-1].totals[0].nanousd == 4_000
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
    assert (ledger.charges[ONE].tenant, ledger.charges[ONE].nanousd) == ("demo", 2_000)
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
    assert (charge.request_id, charge.tenant, charge.nanousd) == ("stray", UNKNOWN_TENANT, 1_000)


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
    assert [c.nanousd for c in again.charges] == [c.nanousd for c in lost.charges] == [1_000]
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
    assert {name: c.nanousd for name, c in ledger.charges.items()} == {ONE: 1_000, TWO: 1_000}
    assert ledger.residual == 0


async def test_readings_are_written_one_after_the_other(replica: Replica) -> None:
    """Were the last reading written while an older one waits for the database, the older would replace it."""
    order, first, go = [], threading.Event(), threading.Event()

    def write(reading) -> None:
        if not first.is_set():
            first.set()
            go.wait(5)
        order.append(reading.replica.ended)

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
    replica_row = replica.written[-1].replica
    assert replica_row.ended
    assert replica.books._meter.seen_ns >= replica.now_ns
    assert replica_row.elapsed_ns == replica_row.cold_ns + replica_row.idle_ns + replica_row.busy_ns


async def test_idle_time_is_booked_only_when_no_request_is_here(replica: Replica) -> None:
    replica.books.admit(ONE, "demo")
    before = replica.books.reading().replica.elapsed_ns
    assert replica.books.reading().replica.elapsed_ns == before
    replica.books.leave(ONE)
    assert replica.books.reading().replica.elapsed_ns > before


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
            assert total.nanousd >= grown.get(key, 0)
            grown[key] = total.nanousd
    ledger.write(replica.books.reading())
    assert ledger.residual == 0
    ended = {n: c.nanousd for n, c in ledger.charges.items() if c.outcome != "running"}
    assert sum(t.nanousd for t in ledger.totals.values()) == sum(ended.values())
