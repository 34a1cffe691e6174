"""A database that is away until there is no room for rows any more: requests go on, are counted, and the bill adds up.

A fleet of its own: one model, two gateways, hardly any room on disk, and idle time that is charged to no one. It takes
a minute or two, so it runs only when FLOTILLA_FULL_SPOOL is set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import yaml
from conftest import up
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually, fleet_file
from postgres_server import PostgresServer
from sqlalchemy import func, select

from serving.ledger import schema

pytestmark = [pytest.mark.integration,
              pytest.mark.skipif("FLOTILLA_FULL_SPOOL" not in os.environ, reason="FLOTILLA_FULL_SPOOL is not set")]
TENANT = "crowd"


@pytest.fixture(scope="module")
def narrow(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """The fleet, up."""
    folder = tmp_path_factory.mktemp("narrow")
    file = fleet_file(folder, ("llama",), (TENANT,))
    fleet = yaml.safe_load(file.read_text())
    fleet["ledger"] = {"spool_mib": 0.05, "when_full": "serve_unmetered"}
    fleet["costs"] |= {"idle": "unallocated"}
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    live = LiveFleet(folder / "state", file, database_url=database.url(database.database()))
    with up(live):
        yield live


def unmetered(fleet: LiveFleet, role: str) -> float:
    """Requests so far of which no row could be kept."""
    return fleet.metrics().sum("flotilla_ledger_unmetered_requests_total", role=role)


def reconciled(fleet: LiveFleet) -> dict[str, int]:
    done = fleet.run("cost", "reconcile", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_requests_without_room_for_rows_are_served_and_counted(narrow: LiveFleet, database: PostgresServer) -> None:
    caller = Caller(narrow.port, narrow.new_key(TENANT))

    def crates() -> int:
        answers = caller.many(CHAT, [chat("llama", f"Crate {n}", 2) for n in range(20)])
        assert {answer.status for answer in answers} == {200}
        return len(answers)

    sent = crates()  # both gateways know the key from here on
    database.stop()
    try:
        sent += sum(crates() for _ in range(20))
    finally:
        database.start()
    eventually(lambda: narrow.metrics().sum("flotilla_ledger_spool_bytes") == 0, "what had room is written", 90)
    narrow.settled()
    eventually(lambda: unmetered(narrow, "gateway") > 0, "what had none is counted", 30)
    with narrow.ledger.snapshot() as db:
        kept = db.execute(select(func.count()).select_from(schema.requests)).scalar_one()
    assert 0 < kept < sent and kept + unmetered(narrow, "gateway") == sent
    assert reconciled(narrow)["residual_nanousd"] == 0


def test_their_cost_is_the_tenants_all_the_same(narrow: LiveFleet) -> None:
    rows = json.loads(narrow.say("cost", "--by", "tenant", "--json"))["rows"]
    paid = {row["keys"]["tenant"]: row["nanousd"] for row in rows}
    assert paid[TENANT]["direct"] > 0
    with narrow.ledger.snapshot() as db:
        charged = db.execute(select(func.sum(schema.charges.c.direct)).where(schema.charges.c.tenant == TENANT))
        assert paid[TENANT]["direct"] == charged.scalar_one()


def test_idle_time_is_charged_to_no_one(narrow: LiveFleet) -> None:
    with narrow.ledger.snapshot() as db:
        idle, cold = db.execute(select(func.sum(schema.charges.c.idle), func.sum(schema.charges.c.cold_start))).one()
    assert idle == cold == 0
    told = reconciled(narrow)
    assert told["idle_nanousd"] > 0 and told["cold_start_nanousd"] > 0 and told["allocated_nanousd"] == 0


@pytest.mark.parametrize("form", ["csv", "parquet", "focus"])
def test_exports_add_up_to_the_bill(narrow: LiveFleet, form: str) -> None:
    file = narrow.state_dir.parent / f"export.{'csv' if form == 'focus' else form}"
    told = json.loads(narrow.say("cost", "export", "--format", form, "--out", str(file), "--json"))
    least = 50 if form == "focus" else 100  # requests that cost nothing are no charges in FOCUS
    assert file.stat().st_size > 0 and told["rows"] > least
    assert 0 < told["sum_nanousd"] <= told["bill_nanousd"] == pytest.approx(told["sum_nanousd"], rel=0.05), (
        "but for what the fleet has cost meanwhile")
