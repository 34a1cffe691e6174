"""The composition root: fits ledger, telemetry, gateway and engines together and hands them to Ray Serve.

The only module that knows all rooms. `deploy` puts a fleet onto a Ray that is there already; `serving.supervisor`
brings that Ray up on one machine.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import overheads
from serving.errors import StartFailed
from serving.fleet.catalogue import Fleet, comparisons
from serving.fleet.prices import PriceBook
from serving.fleet.records import MeterReading
from serving.ledger.durable import DurableReadings, own_spool
from serving.ledger.store import Ledger

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Surroundings:
    """Where a fleet keeps its things and what its parts trust each other by."""

    database: str
    spool_dir: Path
    multiprocess_dir: Path
    pepper: bytes
    secret: str


@dataclass(frozen=True)
class Sources:
    """Where the weights are: hub id or path by model, and by adapter of a model."""

    models: dict[str, str]
    adapters: dict[str, dict[str, str]]


def open_sink(around: Surroundings, limit_bytes: int, replica_id: str) -> Callable[[MeterReading], None]:
    """In a replica: the function that writes readings to the ledger, or on disk while the ledger is away."""
    return DurableReadings(Ledger.later(around.database), own_spool(around.spool_dir, "replica", limit_bytes))


class GatewayReplica:
    """A gateway as Ray Serve runs it: a replica that listens on the API's port itself, beside its siblings.

    Ray starts, watches and stops it; requests do not pass through Ray's proxies.
    """

    async def __init__(self, fleet: Fleet, around: Surroundings) -> None:
        from serving.engines.directory import RayReplicaDirectory
        from serving.gateway.app import Gateway, Ports
        from serving.gateway.server import GatewayServer, listen
        from serving.ledger.adapters import FollowedAdapters
        from serving.ledger.live import LedgerKeyring, LedgerRecords
        from serving.telemetry.meter import PrometheusMeter

        ledger, limits = Ledger.later(around.database), fleet.ledger
        self._records = LedgerRecords(ledger, own_spool(around.spool_dir, "gateway", limits.spool_bytes),
                                      limits.when_full)
        self._readings = DurableReadings(ledger, own_spool(around.spool_dir, "gateway-time", limits.spool_bytes))
        self._overheads = overheads.OverheadKeeper(overheads.meters(fleet, ("gateway",)), self._readings,
                                                   unmetered=lambda: self._records.unmetered).start()
        ports = Ports(LedgerKeyring(ledger, around.pepper), RayReplicaDirectory(fleet), self._records,
                      PrometheusMeter({name: model.slo for name, model in fleet.models.items()}),
                      FollowedAdapters(ledger))
        sock = listen(fleet.gateway.host, fleet.gateway.port)
        self._server = GatewayServer(Gateway(fleet, ports, around.secret), fleet.gateway, sock)
        await self._server.start()

    async def check_health(self) -> None:
        """Ray Serve's hook. Raises: RuntimeError when the server has ended."""
        if not self._server.healthy:
            raise RuntimeError("the gateway's server has ended")

    async def __del__(self) -> None:
        """Ray Serve's hook at a graceful stop: what is under way may end, and every record is written."""
        await self._server.stop()
        await asyncio.to_thread(self._overheads.close)
        await asyncio.to_thread(self._records.close)
        self._readings.close()


def deploy(fleet: Fleet, book: PriceBook, sources: Sources, around: Surroundings, env: dict[str, str],
           progress: Progress) -> None:
    """Bring all models up on a connected Ray, one after the other, and then the gateway.

    `book`: prices of the APIs that the traffic is held against. `env`: environment of all replicas. Returns when the
    API answers.
    Raises: RuntimeError of Ray Serve when an application does not come up.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serving.engines.deployment import application
    from serving.engines.names import app_name

    quiet = LoggingConfig(enable_access_log=False)
    sink = functools.partial(open_sink, around, fleet.ledger.spool_bytes)
    for name in fleet.models:
        progress(f"model {name}")
        app = application(fleet, name, sources.models[name], around.secret, sink, env,
                          comparisons(fleet, name, book), sources.adapters[name])
        _run(serve, app, app_name(name), None, quiet)
    progress("gateway")
    gateway_env = env | {"PROMETHEUS_MULTIPROC_DIR": str(around.multiprocess_dir)}
    gateway = serve.deployment(
        GatewayReplica, name="Gateway", num_replicas=fleet.gateway.replicas, health_check_period_s=2,
        graceful_shutdown_timeout_s=fleet.gateway.drain_s + 5,
        ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": gateway_env}},
    )
    _run(serve, gateway.bind(fleet, around), "gateway", None, quiet)


def _run(serve: Any, app: Any, name: str, route_prefix: str | None, logging_config: Any) -> None:
    """serve.run, with the replica's own words when it fails."""
    try:
        serve.run(app, name=name, route_prefix=route_prefix, logging_config=logging_config)
    except RuntimeError as error:
        found = serve.status().applications.get(name)
        said = [d.message for d in found.deployments.values() if d.message] if found else []
        raise StartFailed("\n".join([*said, str(error)])) from error
