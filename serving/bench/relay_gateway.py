"""The gateway with everything on before a fake replica: keys and records in a real ledger, limits, metrics, costs.

Run as `python -m serving.bench.relay_gateway FLEET_FILE BOOK HTTP_ADDRESS [CARRIER_ADDRESS]` (BOOK: the socket of the
store that limits are counted in) with FLOTILLA_STATE_DIR set and PROMETHEUS_MULTIPROC_DIR pointing to an empty folder.
Composed as `serving.app.GatewayReplica` composes it, without Ray.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.app import open_desk
from serving.fleet import catalogue
from serving.fleet.balance import Replica
from serving.fleet.roster import Roster
from serving.gateway.app import Gateway, Ports
from serving.gateway.ports import ModelState
from serving.gateway.server import GatewayServer, listen
from serving.ledger.durable import own_spool
from serving.ledger.live import LedgerKeyring, LedgerRecords
from serving.ledger.store import Ledger
from serving.settings import Settings
from serving.telemetry import traces
from serving.telemetry.access import AccessLog
from serving.telemetry.meter import PrometheusMeter


class OneReplica:
    """A directory that knows one replica, which is always ready."""

    def __init__(self, address: str, carrier: str) -> None:
        self._found = (Replica("fake", address, carrier),)

    async def start(self) -> None:
        """There is nothing to watch."""

    def replicas(self, model: str) -> Sequence[Replica]:
        """The one."""
        return self._found

    def state(self, model: str) -> ModelState:
        """Ready."""
        return "ready"

    async def wake(self, model: str) -> None:
        """It is awake."""

    async def wait(self, model: str, timeout_s: float) -> bool:
        """It is there."""
        return True


async def main(fleet_file: str, book: str, address: str, carrier: str = "") -> None:
    """Serve until SIGINT or SIGTERM."""
    settings, fleet = Settings.read(os.environ), catalogue.load(Path(fleet_file), ())
    ledger = Ledger.open(settings.database)
    records = LedgerRecords(ledger, own_spool(settings.spool_dir, "gateway", fleet.ledger.spool_bytes))
    roster = Roster(fleet.tenants)
    ports = Ports(LedgerKeyring(ledger, settings.pepper(), roster=roster), OneReplica(address, carrier), records,
                  PrometheusMeter({name: model.slo for name, model in fleet.models.items()},
                                  gen_ai=fleet.metrics.gen_ai),
                  quotas=open_desk(fleet, book, ledger, roster), tracer=traces.tracer(fleet.traces, fleet.name),
                  access=AccessLog(fleet.logs, settings.state_dir / "logs", 0) if fleet.logs.access else None)
    server = GatewayServer(Gateway(fleet, ports, settings.gateway_secret(), roster), fleet.gateway,
                           listen(fleet.gateway.host, fleet.gateway.port))
    asked, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    await server.start()
    gc.freeze()  # as Ray Serve does in a replica
    await asked.wait()
    await server.stop()
    records.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))
