"""Readings through outages: every row is in the ledger once and as it was last read, whoever dies in between."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spool_rig import Clock, FakeLedger, eventually, reading, request, rows_of

from serving.errors import SpoolFull
from serving.fleet.records import MeterReading
from serving.ledger import spool
from serving.ledger.durable import Adopter, Breaker, DurableReadings, Outlet, adopt, own_spool
from serving.ledger.merging import merged
from serving.ledger.segments import encoded
from serving.ledger.spool import Spool

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spools"


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


def newest(readings: list[MeterReading]) -> dict[tuple[Any, ...], Any]:
    """What the ledger must hold after these readings."""
    state: dict[tuple[Any, ...], Any] = {}
    for found in readings:
        state |= rows_of(found)
    return state


def test_while_the_database_is_there_nothing_is_spooled(root: Path, ledger: FakeLedger) -> None:
    waiting = own_spool(root, "replica", MIB)
    write = DurableReadings(ledger, waiting)
    for n in range(1, 4):
        write(reading(n))
    assert ledger.state() == newest([reading(3)]) and waiting.size_bytes == 0


def test_an_outage_loses_nothing_and_is_caught_up(root: Path, ledger: FakeLedger) -> None:
    clock = Clock()
    write = DurableReadings(ledger, own_spool(root, "replica", MIB), clock)
    write(reading(1, charges=(1, 2)))
    ledger.away = True
    for n in range(2, 8):
        write(reading(n, charges=(n,)))
    assert write.stats().entries == 6
    ledger.away = False
    clock.now += 5
    write(reading(8, charges=()))
    assert ledger.state() == newest([reading(1), *(reading(n, charges=(n,)) for n in range(2, 8)), reading(8, ())])
    assert write.stats() == spool.SpoolStats(0, 0)


def test_an_absent_database_is_not_tried_at_each_reading(root: Path, ledger: FakeLedger) -> None:
    clock, ledger.away = Clock(), True
    write, tried = DurableReadings(ledger, own_spool(root, "replica", MIB), clock), []
    for n in range(1, 121):  # a minute of readings
        before = ledger.tries
        write(reading(n))
        if ledger.tries > before:
            tried.append(clock.now)
        clock.now += 0.5
    pauses = [b - a for a, b in pairwise(tried)]
    assert pauses == sorted(pauses) and pauses[0] <= 1 and pauses[-1] == 5
    assert len(tried) < 20


def test_a_pause_grows_and_ends_with_the_first_success() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for expected in (0.5, 1, 2, 4, 5, 5):
        breaker.failed()
        assert breaker.away
        clock.now += expected - 0.001
        assert not breaker.tries
        clock.now += 0.001
        assert breaker.tries
    breaker.worked()
    assert breaker.tries and not breaker.away


def test_a_big_backlog_does_not_hold_a_call_up(root: Path, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    write = DurableReadings(ledger, own_spool(root, "replica", 16 * MIB), clock, effort_s=0.5)
    ledger.away = True
    for n in range(1, 3001):
        write(reading(n))
    ledger.away = False
    clock.now += 5
    once = FakeLedger.write_reading

    def slow(self: FakeLedger, found: MeterReading) -> None:
        clock.now += 0.2
        once(self, found)

    monkeypatch.setattr(FakeLedger, "write_reading", slow)
    calls = 0
    while not calls or write.stats().entries:
        began, calls = clock.now, calls + 1
        write(reading(3000 + calls))
        assert clock.now - began <= 0.9
    assert 3 < calls < 10
    assert ledger.state() == newest([reading(n) for n in range(1, 3001 + calls)])


def test_a_full_spool_is_told_until_there_is_room(root: Path, ledger: FakeLedger) -> None:
    clock, one = Clock(), len(encoded(reading(100)))
    write = DurableReadings(ledger, own_spool(root, "replica", 5 * one), clock)
    ledger.away = True
    for n in range(100, 105):
        write(reading(n))
    for n in range(105, 108):
        with pytest.raises(SpoolFull):
            write(reading(n))
    assert write.full and write.stats().bytes <= 5 * one
    ledger.away = False
    clock.now += 5
    write(reading(108))
    assert not write.full and ledger.state() == newest([*(reading(n) for n in range(100, 105)), reading(108)])


def test_a_connection_that_breaks_after_the_commit_changes_nothing(root: Path, ledger: FakeLedger) -> None:
    clock = Clock()
    write = DurableReadings(ledger, own_spool(root, "replica", MIB), clock)
    ledger.forgets_to_answer = True
    for n in range(1, 20):
        write(reading(n))
        clock.now += 3
    ledger.forgets_to_answer = False
    clock.now += 5
    write(reading(20))
    assert ledger.state() == newest([reading(20), reading(1), *(reading(n) for n in range(2, 21))])


def test_a_reading_that_the_database_refuses_stops_no_other(root: Path, ledger: FakeLedger) -> None:
    clock = Clock()
    write = DurableReadings(ledger, waiting := own_spool(root, "replica", MIB), clock)
    ledger.refuses = lambda row: any(charge.request_id == "flo-bad" for charge in row.charges)
    bad = reading(50, charges=("bad",))  # type: ignore[arg-type]
    for n in range(1, 200):
        write(bad if n == 50 else reading(n, charges=(n,)))
        clock.now += 0.5
    assert ledger.state() == newest([reading(n, charges=(n,)) for n in range(1, 200) if n != 50])
    assert waiting.empty and waiting.refused
    ledger.refuses = lambda row: False  # the database was mended
    clock.now += 600
    write(reading(200, charges=()))
    assert ("r1", "charge", "flo-bad") in ledger.state() and not waiting.refused


@pytest.mark.parametrize("bad", range(12))
def test_one_refused_entry_is_found_wherever_it_stands(root: Path, ledger: FakeLedger, bad: int) -> None:
    """The last of all is told from an outage only once something comes after it."""
    waiting = own_spool(root, "gateway", MIB)
    for n in range(13):
        waiting.append(request(n))
    ledger.refuses = lambda row: row.request_id == f"flo-{bad}"
    assert Outlet(ledger, waiting, Clock()).flush(1.0)
    assert len(ledger.requests) == 12 and waiting.refused


def test_a_row_that_is_wrong_in_itself_needs_no_other_to_tell(root: Path, ledger: FakeLedger) -> None:
    waiting = own_spool(root, "gateway", MIB)
    waiting.append(request(1))

    def wrong(row: Any) -> bool:
        raise OverflowError("too large")

    ledger.refuses = wrong
    assert Outlet(ledger, waiting, Clock()).flush(1.0) and waiting.refused


def test_consecutive_readings_are_written_as_one(root: Path, ledger: FakeLedger) -> None:
    clock, ledger.away = Clock(), True
    write = DurableReadings(ledger, own_spool(root, "replica", MIB), clock)
    for n in range(1, 101):
        write(reading(n, charges=(n % 7,)))
    ledger.away, ledger.written = False, 0
    clock.now += 5
    write(reading(101))
    assert ledger.written == 2


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["r1", "r2"]), st.lists(st.frozensets(st.integers(1, 3)), max_size=8)), st.data()
)
def test_merging_changes_nothing_in_whatever_ledger(
    charges: dict[str, list[frozenset[int]]], data: st.DataObject
) -> None:
    """Also when readings are missing in between, come twice or late, or are in the ledger already."""
    known = [reading(n, sorted(rows), source) for source, each in charges.items() for n, rows in enumerate(each)]
    some = st.lists(st.sampled_from(known), max_size=8) if known else st.just([])
    before, after = data.draw(some), data.draw(some)
    one, other = FakeLedger(), FakeLedger()
    for found in before:
        one.write_reading(found)
        other.write_reading(found)
    for found in after:
        one.write_reading(found)
    for found in merged(after):
        other.write_reading(found)
    assert one.state() == other.state()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 2), st.frozensets(st.integers(1, 4), max_size=3)),
        st.tuples(st.sampled_from(["away", "back", "forgets", "kill", "tear", "adopt", "wait"]), st.integers(0, 2),
                  st.just(frozenset())),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS)
def test_whatever_fails_every_row_ends_as_last_read(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, frozenset[int]]]
) -> None:
    """Three meters in processes of their own, with a database that comes and goes, kills, torn writes and adopters."""
    root, ledger, clock, limit = tmp_path_factory.mktemp("spools"), FakeLedger(), Clock(), 4000
    kept: list[MeterReading] = []
    numbers, lives = [0, 0, 0], [0, 0, 0]
    living: list[tuple[Spool, DurableReadings] | None] = [None, None, None]
    for what, who, charges in actions:
        source = f"r{who}-{lives[who]}"
        if what == "read":
            if living[who] is None:
                waiting = Spool(root / source, limit)
                living[who] = waiting, DurableReadings(ledger, waiting, clock, effort_s=0.0)
            numbers[who] += 1
            found = reading(numbers[who], sorted(charges), source)
            try:
                living[who][1](found)
                kept.append(found)
            except SpoolFull:
                numbers[who] -= 1  # the meter tells it again with the next
            assert living[who][0].size_bytes <= limit
            clock.now += 0.5
        elif what in ("kill", "tear"):
            if living[who] is not None:
                living[who][0].close()  # which does no more than a death does: it gives up the lock
                segments = sorted((root / source).glob("*.seg"))
                if what == "tear" and segments:
                    with segments[-1].open("ab") as file:
                        file.write(encoded(reading(99, (9,), source))[:-1])
            living[who], lives[who], numbers[who] = None, lives[who] + 1, 0
        elif what == "adopt":
            adopt(root, ledger)
        elif what == "wait":
            clock.now += 5
        else:
            ledger.away, ledger.forgets_to_answer = what == "away", what == "forgets"
    ledger.away = ledger.forgets_to_answer = False
    for entry in living:
        if entry is not None:
            entry[0].close()
    adopt(root, ledger)
    assert ledger.state() == newest(kept)
    assert not list(root.iterdir())


def test_adoption_leaves_the_living_alone(root: Path, ledger: FakeLedger) -> None:
    living, dead = own_spool(root, "replica", MIB), own_spool(root, "replica", MIB)
    living.append(reading(1, source="living"))
    dead.append(reading(1, source="dead"))
    dead.append(request(1))
    dead.close()
    assert adopt(root, ledger) == 2
    assert ledger.state() == newest([reading(1, source="dead")]) and set(ledger.requests) == {"flo-1"}
    assert list(root.iterdir()) == [living.folder] and living.entries == 1


def test_adoption_waits_for_the_database(root: Path, ledger: FakeLedger) -> None:
    for n in range(3):
        dead = own_spool(root, "replica", MIB)
        dead.append(request(n))
        dead.close()
    ledger.away = True
    assert adopt(root, ledger) == 0 and len(list(root.iterdir())) == 3
    ledger.away = False
    assert adopt(root, ledger) == 3 and not list(root.iterdir())


def test_there_may_be_nothing_to_adopt(root: Path, ledger: FakeLedger) -> None:
    assert adopt(root, ledger) == 0
    (root / "no-spool").mkdir(parents=True)
    assert adopt(root, ledger) == 0 and (root / "no-spool").exists()


def test_adopters_at_once_harm_nothing(root: Path, ledger: FakeLedger) -> None:
    for n in range(20):
        dead = own_spool(root, "replica", MIB)
        for row in range(10):
            dead.append(request(10 * n + row))
        dead.close()
    together, counts = threading.Barrier(4), []

    def run() -> None:
        together.wait()
        counts.append(adopt(root, ledger))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 200 == len(ledger.requests) and not list(root.iterdir())


def test_what_was_refused_is_tried_again_by_the_next_process(root: Path, ledger: FakeLedger) -> None:
    dead = own_spool(root, "replica", MIB)
    for n in range(3):
        dead.append(request(n))
    dead.close()
    ledger.refuses = lambda row: row.request_id == "flo-1"
    assert adopt(root, ledger) == 3 and set(ledger.requests) == {"flo-0", "flo-2"}
    assert adopt(root, ledger) == 0 and len(list(root.iterdir())) == 1
    ledger.refuses = lambda row: False
    assert adopt(root, ledger, again=True) == 1
    assert set(ledger.requests) == {"flo-0", "flo-1", "flo-2"} and not list(root.iterdir())


def test_an_adopter_looks_again(root: Path, ledger: FakeLedger) -> None:
    adopter = Adopter(root, ledger, every_s=0.01)
    try:
        dead = own_spool(root, "replica", MIB)
        dead.append(request(1))
        dead.close()
        eventually(lambda: set(ledger.requests) == {"flo-1"} and not list(root.iterdir()))
    finally:
        adopter.close()


SPOOLER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from spool_rig import FakeLedger, reading
from serving.ledger.durable import DurableReadings, own_spool
ledger = FakeLedger()
ledger.away = True
write = DurableReadings(ledger, own_spool(Path({root!r}), "replica", 1 << 30))
number = 0
while True:
    number += 1
    write(reading(number, charges=(number % 50,)))
    print(number, flush=True)
"""


def test_a_process_killed_while_it_spools_loses_nothing_that_it_kept(root: Path, ledger: FakeLedger) -> None:
    code = SPOOLER.format(here=str(Path(__file__).parent), root=str(root))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(500):
            process.stdout.readline()
        assert adopt(root, ledger) == 0, "it lives"
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split("\n")
    last = max(int(line) for line in [*said, "500"] if line.isdecimal())
    assert adopt(root, ledger) >= last
    number = ledger.rows["r1",][0]
    assert number in (last, last + 1), "the one under way may have been kept"
    assert ledger.state() == newest([reading(n, charges=(n % 50,)) for n in range(1, number + 1)])
    assert not list(root.iterdir())


def test_memory_stays_flat_through_a_long_outage(root: Path, ledger: FakeLedger) -> None:
    clock, ledger.away = Clock(), True
    write, me = DurableReadings(ledger, own_spool(root, "replica", 256 * MIB), clock), psutil.Process()
    for n in range(1, 2000):
        write(reading(n))
    resident = [me.memory_info().rss]
    for n in range(2000, 50_001):
        write(reading(n))
        clock.now += 0.5
        if n % 1000 == 0:
            resident.append(me.memory_info().rss)
    assert write.stats().entries == 50_000
    ledger.away = False
    clock.now += 5
    while write.stats().entries:
        write(reading(50_001))
        resident.append(me.memory_info().rss)
    assert max(resident) - resident[0] < 40 * MIB
    assert ledger.rows["r1",][0] == 50_001


def test_a_spool_that_cannot_be_read_is_no_end(root: Path, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = own_spool(root, "replica", MIB)
    waiting.append(request(1))

    def fails(*args: Any) -> bytes:
        raise OSError("Input/output error")

    monkeypatch.setattr(spool, "read", fails)
    assert not Outlet(ledger, waiting, Clock()).flush(1.0)
    monkeypatch.undo()
    assert Outlet(ledger, waiting, Clock()).flush(1.0) and set(ledger.requests) == {"flo-1"}


def test_each_spool_has_a_folder_of_its_own(root: Path) -> None:
    assert len({own_spool(root, "gateway", MIB).folder for _ in range(10)}) == 10
