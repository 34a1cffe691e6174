"""The composition root: fits ledger, telemetry, gateway and engines together and hands them to Ray Serve.

The only module that knows all rooms. `deploy` puts a fleet onto a Ray that is there already; `serving.supervisor`
brings that Ray up on one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import overheads
from serving.clusterweights import Sources
from serving.engines import scaling
from serving.engines.names import GATEWAY_APP, GATEWAY_DEPLOYMENT, app_name
from serving.engines.scaling import Place
from serving.errors import LedgerError, StartFailed
from serving.fleet.catalogue import Fleet, comparisons
from serving.fleet.demand import estimators
from serving.fleet.prices import Comparison, PriceBook
from serving.fleet.records import MeterReading
from serving.fleet.resources import GATEWAY_CPUS
from serving.fleet.roster import Roster
from serving.ledger import tenants
from serving.ledger.budgets import LedgerTruth
from serving.ledger.durable import DurableReadings, own_spool
from serving.ledger.store import Ledger
from serving.quotastore.base import Store
from serving.quotastore.client import BookClient
from serving.quotastore.desk import Desk
from serving.quotastore.own import OwnBook
from serving.settings import Settings

Progress = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """Where a fleet keeps its things and what its parts trust each other by. `quotas`: where gateways count limits
    together, a URL or the path of a socket; empty: each counts for itself."""

    database: str
    spool_dir: Path
    multiprocess_dir: Path
    pepper: bytes
    secret: str
    quotas: str = ""
    logs_dir: Path = Path("logs")

    @classmethod
    def here(cls) -> Surroundings:
        """Those of this process's environment: in a cluster secrets do not travel through Ray. Raises: ConfigError."""
        own = Settings.read(os.environ)
        return cls(own.database, own.spool_dir, Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")), own.pepper(),
                   own.gateway_secret(), own.quota_url, own.state_dir.absolute() / "logs")


def open_sink(around: Surroundings | None, limit_bytes: int, replica_id: str) -> Callable[[MeterReading], None]:
    """In a replica: the function that writes readings to the ledger, or on disk while the ledger is away.

    `around`: None for that of the replica's own environment.
    """
    around = around or Surroundings.here()
    return DurableReadings(Ledger.later(around.database), own_spool(around.spool_dir, "replica", limit_bytes))


def open_desk(fleet: Fleet, where: str, ledger: Ledger, roster: Roster) -> Desk:
    """What a gateway asks about limits. `where`: as `Surroundings.quotas`. Raises: ConfigError for a wrong URL."""
    if "://" in where:
        from serving.quotastore.redis import RedisStore

        store: Store = RedisStore(where, fleet.name)
    else:
        store = BookClient(Path(where)) if where else OwnBook()
    limits = {name: model.limits for name, model in fleet.models.items()}
    return Desk(store, LedgerTruth(ledger), roster, estimators(fleet, time.time()), limits, fleet.gateway.replicas,
                fleet.quotas.when_away == "open")


class GatewayReplica:
    """A gateway as Ray Serve runs it: a replica that listens on the API's port itself, beside its siblings.

    Ray starts, watches and stops it; requests do not pass through Ray's proxies.
    """

    async def __init__(self, fleet: Fleet, around: Surroundings | None, failed: frozenset[str] = frozenset()) -> None:
        """`around`: None for that of this process's own environment. `failed`: models that did not come up."""
        from serving.engines.directory import RayReplicaDirectory
        from serving.gateway.app import Gateway, Ports
        from serving.gateway.server import GatewayServer, listen
        from serving.identity.oidc import OidcKeyring
        from serving.ledger.adapters import FollowedAdapters
        from serving.ledger.asking import LedgerUsage
        from serving.ledger.live import LedgerKeyring, LedgerRecords
        from serving.telemetry import logs, traces
        from serving.telemetry.access import AccessLog
        from serving.telemetry.meter import PrometheusMeter

        around = around or Surroundings.here()
        ledger, limits = Ledger.later(around.database), fleet.ledger
        self._records = LedgerRecords(ledger, own_spool(around.spool_dir, "gateway", limits.spool_bytes),
                                      limits.when_full)
        self._readings = DurableReadings(ledger, own_spool(around.spool_dir, "gateway-time", limits.spool_bytes))
        self._overheads = overheads.OverheadKeeper(overheads.meters(fleet, ("gateway",)), self._readings,
                                                   unmetered=lambda: self._records.unmetered).start()
        logs.configure(fleet.logs, "gateway")
        self._access = AccessLog(fleet.logs, around.logs_dir, os.getpid()) if fleet.logs.access else None
        self._tracer = traces.tracer(fleet.traces, fleet.name)
        roster = Roster(fleet.tenants)
        self._keys = LedgerKeyring(ledger, around.pepper, roster=roster)
        ports = Ports(OidcKeyring(fleet.oidc, self._keys) if fleet.oidc else self._keys,
                      RayReplicaDirectory(fleet, failed), self._records,
                      PrometheusMeter({name: model.slo for name, model in fleet.models.items()},
                                      gen_ai=fleet.metrics.gen_ai),
                      FollowedAdapters(ledger), quotas=open_desk(fleet, around.quotas, ledger, roster),
                      usage=LedgerUsage(ledger), tracer=self._tracer, access=self._access)
        sock = listen(fleet.gateway.host, fleet.gateway.port)
        self._gateway = Gateway(fleet, ports, around.secret, roster)
        self._server = GatewayServer(self._gateway, fleet.gateway, sock)
        await self._server.start()

    async def check_health(self) -> None:
        """Ray Serve's hook. Raises: RuntimeError when the server has ended."""
        if not self._server.healthy:
            raise RuntimeError("the gateway's server has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve's hook: what `scaling.Listen` hears."""
        return self._gateway.told()

    async def __del__(self) -> None:
        """Ray Serve's hook at a graceful stop: what is under way may end, and every record is written."""
        await self._server.stop()
        await self._keys.close()
        await asyncio.to_thread(self._overheads.close)
        await asyncio.to_thread(self._records.close)
        self._readings.close()
        for thread in (self._tracer, self._access):
            if thread is not None:
                await asyncio.to_thread(thread.close)


def model_application(fleet: Fleet, name: str, compared: tuple[Comparison, ...], sources: Sources,
                      around: Surroundings | None, env: dict[str, str],
                      resources: dict[str, float] | None = None) -> Any:
    """The Serve application of one model.

    `compared`: the APIs that its traffic is held against. `around`: None for that of each process's own environment.
    `env`: further environment of its replicas. `resources`: Ray resources that bind replicas to their pods.
    """
    from serving.engines.deployment import application

    sink = functools.partial(open_sink, around, fleet.ledger.spool_bytes)
    # on a cluster serveConfigV2 says how it scales
    place = Place(str(around.multiprocess_dir), str(around.logs_dir / "scaling.log")) if around else Place()
    return application(fleet, name, sources.models[name], around.secret if around else "", sink, env, compared,
                       sources.adapters[name], resources, place)


def gateway_application(fleet: Fleet, around: Surroundings | None, env: dict[str, str],
                        resources: dict[str, float] | None = None, failed: frozenset[str] = frozenset()) -> Any:
    """The Serve application of the gateways; arguments as of `model_application`. `failed`: models that are not there.
    """
    from ray import serve

    options: dict[str, Any] = {"num_cpus": GATEWAY_CPUS, "runtime_env": {"env_vars": env}}
    gateway = serve.deployment(
        GatewayReplica, name=GATEWAY_DEPLOYMENT, **scaling.of_gateways(fleet), health_check_period_s=2,
        graceful_shutdown_timeout_s=fleet.gateway.drain_s + 5,
        ray_actor_options=options | ({"resources": resources} if resources else {}),
    )
    return gateway.bind(fleet, around, failed)


def seed_tenants(fleet: Fleet, database: str) -> None:
    """Bring the fleet file's tenants into the ledger, where admins change them. Without it gateways go by the file."""
    try:
        tenants.seed(Ledger.later(database), fleet.tenants, time.time())
    except LedgerError as error:
        log.warning("the fleet file's tenants are not in the ledger yet (%s)", error)


def deploy(fleet: Fleet, book: PriceBook, sources: Sources, around: Surroundings, env: dict[str, str],
           progress: Progress, on_failure: Callable[[str, Exception], None]) -> None:
    """Bring all models up on a connected Ray, one after the other, and then the gateway.

    `book`: prices of the APIs that the traffic is held against. `sources`: a model without one is left out. `env`:
    environment of all replicas. `on_failure`: told of each model that does not come up; the others do. Returns when
    the API answers.
    Raises: StartFailed when no model comes up, or the gateway does not.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    seed_tenants(fleet, around.database)
    quiet = LoggingConfig(enable_access_log=False)
    failures: dict[str, Exception] = {}
    for name in sources.models:
        progress(f"model {name}")
        try:
            app = model_application(fleet, name, comparisons(fleet, name, book), sources, around, env)
            _run(serve, app, app_name(name), None, quiet)
        except Exception as error:  # whatever it is, the others can be served
            with contextlib.suppress(Exception):  # it may not have come as far as Ray
                serve.delete(app_name(name))
            failures[name] = error
            on_failure(name, error)
    if not sources.models.keys() - failures.keys():
        raise StartFailed("\n".join(f"{name}: {error}" for name, error in failures.items()))
    progress("gateway")
    gateway_env = env | {"PROMETHEUS_MULTIPROC_DIR": str(around.multiprocess_dir)}
    down = frozenset(fleet.models) - (sources.models.keys() - failures.keys())
    _run(serve, gateway_application(fleet, around, gateway_env, failed=down), GATEWAY_APP, None, quiet)


def _run(serve: Any, app: Any, name: str, route_prefix: str | None, logging_config: Any) -> None:
    """serve.run, with the replica's own words when it fails."""
    try:
        serve.run(app, name=name, route_prefix=route_prefix, logging_config=logging_config)
    except RuntimeError as error:
        found = serve.status().applications.get(name)
        said = [d.message for d in found.deployments.values() if d.message] if found else []
        raise StartFailed("\n".join([*said, str(error)])) from error
