"""The bill adds up after everything at once: callers who leave, a killed engine, and a database that is away meanwhile.

A fleet of its own: three models, two gateways, and its ledger in a PostgreSQL server that the test stops and starts.
Each model is metered in another way: one drafts tokens that are rejected, one tells no steps, one is plain. Idle time
is charged to the tenant who asked for the replicas.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import stop_and_check, up
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, engine_core, eventually, fleet_file
from postgres_server import PostgresServer
from sqlalchemy import func, select

from serving.ledger import schema, sums

pytestmark = pytest.mark.integration
MODELS = ("qwen", "deepseek-r1", "llama")
TENANT = "outage"
OWNER = "landlord"  # of all models; it calls none


@pytest.fixture(scope="module")
def outage(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """The fleet, up."""
    folder = tmp_path_factory.mktemp("outage")
    live = LiveFleet(folder / "state", differently_metered(fleet_file(folder, MODELS, (TENANT, OWNER))),
                     database_url=database.url(database.database()))
    with up(live):
        yield live


def differently_metered(file: Path) -> Path:
    """The same fleet file with other ways of metering and another payer of idle time."""
    fleet = yaml.safe_load(file.read_text())
    models, draft = fleet["models"], {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2,
                                      "prompt_lookup_min": 1}
    models["deepseek-r1"]["engine"]["metering"] = "window"
    models["qwen"]["engine"]["args"] |= {"speculative_config": draft}
    for model in models.values():
        model["owner"] = OWNER
    fleet["costs"] |= {"idle": "owner"}
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    return file


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
    assert list(seen.values()).count(200) > 20 and list(seen.values()).count(499) > 5
    assert [seen[r] for r, code in rows.items() if code == 499 and seen.get(r) == 200] == []


def test_every_row_names_how_it_was_metered(outage: LiveFleet) -> None:
    with outage.ledger.snapshot() as db:
        methods = db.execute(select(schema.sources.c.model, schema.charges.c.method, func.count())
                             .join(schema.sources, schema.sources.c.source_id == schema.charges.c.source_id)
                             .group_by(schema.sources.c.model, schema.charges.c.method)).tuples().all()
    of = {model: {method for name, method, _ in methods if name == model} for model in MODELS}
    assert of["deepseek-r1"] == {"window"}
    assert "window" not in of["qwen"] | of["llama"] and of["qwen"] and of["llama"]


def test_rejected_drafts_are_waste(outage: LiveFleet) -> None:
    with outage.ledger.snapshot() as db:
        charges = db.execute(select(schema.charges).where(schema.charges.c.outcome == "finished",
                                                          schema.charges.c.rejected > 0)).mappings().all()
    assert charges, "no draft was rejected"
    assert all(row["direct"] > 0 for row in charges)
    # not in every row: on a model this small the fit may find that one more token in a step costs no time
    assert sum(row["waste"] for row in charges) > 0


def test_idle_time_is_charged_to_the_owner_and_to_no_request(outage: LiveFleet) -> None:
    rows = json.loads(outage.say("cost", "--by", "tenant", "--json"))["rows"]
    paid = {row["keys"]["tenant"]: row["nanousd"] for row in rows}
    assert paid[OWNER]["idle"] > 0 and paid[OWNER]["cold_start"] > 0 and paid[OWNER]["direct"] == 0
    assert paid[TENANT]["direct"] > 0 and paid[TENANT]["idle"] == paid[TENANT]["cold_start"] == 0


def test_utilisation_and_break_even_are_told_once_the_steps_are_fitted(outage: LiveFleet) -> None:
    eventually(lambda: outage.metrics().of("flotilla_breakeven_utilisation_ratio", model="qwen"), "break-even", 60, 0.5)
    found = outage.metrics()
    assert found.sum("flotilla_step_model_fitted", model="qwen") == 1
    (utilisation,) = [value for _, value in found.of("flotilla_utilisation_ratio", model="qwen")]
    assert 0 < utilisation < 1
    even = {has["comparator"]: value for has, value in found.of("flotilla_breakeven_utilisation_ratio", model="qwen")}
    assert len(even) == 3 and all(value > 0 for value in even.values())


def test_and_the_bill_still_adds_up_when_the_fleet_has_stopped(outage: LiveFleet, database: PostgresServer) -> None:
    running = reconciled(outage)["bill_nanousd"]
    eventually(lambda: reconciled(outage)["bill_nanousd"] > running, "time goes on costing", 20, 0.5)
    stop_and_check(outage)
    found = reconciled(outage)
    assert found["residual_nanousd"] == 0
    assert outage.ledger and not list((Path(outage.state_dir) / "spool").glob("*/*.seg")), "no row is left on disk"
    time_over = reconciled(outage)["bill_nanousd"]
    assert time_over == found["bill_nanousd"], "what has stopped costs nothing"
