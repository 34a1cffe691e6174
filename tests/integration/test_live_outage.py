"""The bill adds up after everything at once: callers who leave, a killed engine, and a database that is away meanwhile.

A fleet of its own: three models, two gateways, and its ledger in a PostgreSQL server that the test stops and starts.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres_server
import pytest
from conftest import stop_and_check
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, engine_core, eventually, fleet_file, no_interrupts
from postgres_server import PostgresServer
from sqlalchemy import func, select

from serving.ledger import schema, sums

pytestmark = pytest.mark.integration
MODELS = ("qwen", "deepseek-r1", "llama")
TENANT = "outage"


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """The ledger's server."""
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def outage(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """The fleet, up."""
    folder = tmp_path_factory.mktemp("outage")
    live = LiveFleet(folder / "state", fleet_file(folder, MODELS, (TENANT,)),
                     database_url=database.url(database.database()))
    try:
        live.start()
        yield live
    finally:
        with no_interrupts():
            stop_and_check(live)


@contextmanager
def load(caller: Caller) -> Iterator[dict[str, int]]:
    """Callers of all models for as long as the block lasts: answers, streams, and streams that are left early. Gives
    the status by request id (of those that got an answer's head), 499 for those that were left."""
    seen: dict[str, int] = {}
    over = threading.Event()

    def call(model: str, kind: int) -> None:
        turn = 0
        while not over.wait(0.1):  # the commands under test need some of the machine too
            turn += 1
            stream = caller.open(CHAT, chat(model, f"Turn {turn}", 24 if kind < 2 else 800, stream=kind > 0))
            try:
                if kind < 2:
                    stream.rest()
                else:
                    next(stream.events())
                seen[stream.headers["x-flotilla-request-id"]] = stream.status if kind < 2 else 499
            except (OSError, StopIteration):
                seen[stream.headers["x-flotilla-request-id"]] = 0  # its engine was killed
            finally:
                stream.close()

    threads = [threading.Thread(target=call, args=(model, kind)) for model in MODELS for kind in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def spooled(fleet: LiveFleet) -> float:
    """Bytes that wait for the database."""
    return fleet.metrics().sum("flotilla_ledger_spool_bytes")


def reconciled(fleet: LiveFleet) -> dict[str, int]:
    done = fleet.run("cost", "reconcile", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_aborts_a_killed_engine_and_a_database_outage_leave_nothing_unaccounted(
        outage: LiveFleet, database: PostgresServer) -> None:
    caller, core = Caller(outage.port, outage.new_key(TENANT)), engine_core(outage, "llama")
    with load(caller) as seen:
        eventually(lambda: len(seen) >= 20, "load", 60)
        before = reconciled(outage)
        database.stop()
        eventually(lambda: spooled(outage) > 0, "rows wait on disk", 30)
        assert outage.metrics().sum("flotilla_ledger_up") == 0
        so_far = len(seen)
        eventually(lambda: len(seen) >= so_far + 30, "requests are answered without the database", 60)
        core.send_signal(signal.SIGKILL)
        so_far = len(seen)
        eventually(lambda: len(seen) >= so_far + 20, "and after an engine has died", 60)
        database.start()
        so_far = len(seen)
        eventually(lambda: len(seen) >= so_far + 20, "and when it is back", 60)
    eventually(lambda: spooled(outage) == 0, "all rows have reached the database, the dead replica's too", 90)
    ledger = outage.ledger
    eventually(lambda: not any(sums.totals(ledger, time.time()).running.values()), "the dead's books are closed", 90)
    outage.settled()
    after = reconciled(outage)
    assert after["residual_nanousd"] == 0
    assert after["bill_nanousd"] > before["bill_nanousd"] and after["overhead_nanousd"] > before["overhead_nanousd"]
    with outage.ledger.snapshot() as db:
        rows = dict(db.execute(select(schema.requests.c.request_id, schema.requests.c.code)).tuples().all())
        twice = db.execute(select(func.count(), func.count(schema.charges.c.request_id.distinct()))
                           .select_from(schema.charges)).one()
    assert twice[0] >= twice[1] > 50
    missing = [request_id for request_id, status in seen.items() if status and request_id not in rows]
    assert not missing, f"{len(missing)} of {len(seen)} requests have no row"
    assert list(seen.values()).count(200) > 50 and list(seen.values()).count(499) > 5
    assert [seen[r] for r, code in rows.items() if code == 499 and seen.get(r) == 200] == []


def test_and_the_bill_still_adds_up_when_the_fleet_has_stopped(outage: LiveFleet, database: PostgresServer) -> None:
    running = reconciled(outage)["bill_nanousd"]
    eventually(lambda: reconciled(outage)["bill_nanousd"] > running, "time goes on costing", 20, 0.5)
    stop_and_check(outage)
    found = reconciled(outage)
    assert found["residual_nanousd"] == 0
    assert outage.ledger and not list((Path(outage.state_dir) / "spool").glob("*/*.seg")), "no row is left on disk"
    time_over = reconciled(outage)["bill_nanousd"]
    assert time_over == found["bill_nanousd"], "what has stopped costs nothing"
