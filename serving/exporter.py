"""The exporter's process: `python -m serving.exporter`, with a `Plan` on standard input, or in a pod of its own with
`--fleet FILE`. Prints `ready` when bound.

One per fleet, so it also does what is to be done once: it keeps the overhead of the head node and of storage, and
brings to the ledger what processes of this machine left on disk when they died, and closes the books of the dead.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from serving import economics, ledgermetrics, overheads, processes
from serving.budgetmetrics import Budgets
from serving.fleet.catalogue import price_book
from serving.fleet.observing import LogSpec
from serving.ledger.dead import Closer
from serving.ledger.durable import Adopter, DurableReadings, own_spool
from serving.ledger.store import Ledger
from serving.plan import Changes, Plan, fleet
from serving.settings import Settings
from serving.telemetry import exporter, logs, pushing
from serving.telemetry.capping import Tenants

_NAMED = "named-tenants.json"
_DEAD_S = 10.0  # between looks for what died
_ECONOMICS_S = 3600.0  # over which utilisation and break-even are told


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m serving.exporter")
    parser.add_argument("--fleet", type=Path, help="the fleet file; without it a Plan is read from standard input")
    file = parser.parse_args().fleet
    if file is None:
        processes.die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # so that the last readings are written
    logs.configure(LogSpec(), "exporter")
    settings = Settings.read(os.environ)
    if file is None:
        plan = Plan.from_json(sys.stdin.read())
        file, changes, counters = Path(plan.fleet_file), plan.changes, Path(plan.work_dir) / "metrics"
    else:  # gateways count in their own pods, whose sidecars tell (`serving.sidecar`)
        changes, counters = Changes({}), settings.state_dir / "no-gateways-here"
        counters.mkdir(parents=True, exist_ok=True)
    found, ledger = fleet(file, changes), Ledger.later(settings.database)
    logs.configure(found.logs, "exporter")
    book = price_book(found, file)
    samples = ledgermetrics.LedgerSamples(ledger, lambda: [
        f.even for f in economics.gather(ledger, found, book, time.time(), time.time() - _ECONOMICS_S) if f.even],
        budgets=Budgets(ledger, {name: model.limits for name, model in found.models.items()}, time.time))
    server = exporter.serve(found.metrics.host, found.metrics.port, str(counters), samples,
                            samples.targets, lambda: ledgermetrics.spools(settings.spool_dir),
                            Tenants(found.metrics.max_tenants, found.tenants, settings.state_dir / _NAMED))
    readings = DurableReadings(ledger, own_spool(settings.spool_dir, "exporter", found.ledger.spool_bytes))
    keeper = overheads.OverheadKeeper(overheads.meters(found, ("head", "storage")), readings).start()
    adopter = Adopter(settings.spool_dir, ledger, _DEAD_S, Closer(ledger).look)
    pusher = pushing.pusher(found.metrics, found.name, counters)
    if pusher is not None:
        pusher.start()
    print("ready", flush=True)
    try:
        server.serve_forever()
    finally:
        if pusher is not None:
            pusher.close()
        keeper.close(timeout_s=3)
        readings.close()
        adopter.close(timeout_s=1)


if __name__ == "__main__":
    main()
