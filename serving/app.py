"""The composition root: fits ledger, telemetry, gateway and engines together and hands them to Ray Serve.

The only module that knows all rooms. `deploy` puts a fleet onto a Ray that is there already; `serving.supervisor`
brings that Ray up on one machine.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import StartFailed
from serving.fleet.catalogue import Fleet
from serving.fleet.money import usd
from serving.fleet.records import TOKEN_KINDS, MeterReading, RequestRecord
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.telemetry.exporter import Sample, Target

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Surroundings:
    """Where a fleet keeps its things and what its parts trust each other by."""

    ledger_path: Path
    multiprocess_dir: Path
    pepper: bytes
    secret: str


def open_sink(path: Path) -> Callable[[MeterReading], None]:
    """In a replica: the function that writes readings to the ledger."""
    return Ledger.open(path).write_reading


class GatewayEntry:
    """The gateway as Ray Serve carries it: built in the replica at the first message, from values that can travel."""

    def __init__(self, fleet: Fleet, around: Surroundings) -> None:
        self._fleet, self._around = fleet, around
        self._app: Any = None
        self._records: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if self._app is None:
            self._build()
        await self._app(scope, receive, send)
        if scope["type"] == "lifespan":
            self._records.close()

    def _build(self) -> None:
        from serving.engines.directory import RayReplicaDirectory
        from serving.gateway.app import Gateway, Ports
        from serving.ledger.live import LedgerKeyring, LedgerRecords

        ledger = Ledger.open(self._around.ledger_path)
        self._records = LedgerRecords(ledger)
        ports = Ports(LedgerKeyring(ledger, self._around.pepper), RayReplicaDirectory(self._fleet), self._records,
                      PrometheusMeter())
        self._app = Gateway(self._fleet, ports, self._around.secret)


class PrometheusMeter:
    """The gateway's counts, as Prometheus metrics."""

    def __init__(self) -> None:
        from serving.telemetry.metrics import GatewayMetrics

        self._metrics = GatewayMetrics()

    def begin(self, model: str) -> None:
        """A request has been routed."""
        self._metrics["flotilla_requests_in_flight"].labels(model).inc()

    def end(self, model: str) -> None:
        """It is over."""
        self._metrics["flotilla_requests_in_flight"].labels(model).dec()

    def answered(self, record: RequestRecord, cost_usd: float | None) -> None:
        """Count one request."""
        found, who = self._metrics, (record.model, record.tenant)
        found["flotilla_requests_total"].labels(*who, record.endpoint, str(record.code)).inc()
        if not record.model:
            return
        found["flotilla_request_duration_seconds"].labels(*who, record.endpoint).observe(record.duration_s)
        if record.ttft_s is not None:
            found["flotilla_time_to_first_token_seconds"].labels(*who).observe(record.ttft_s)
            if record.tokens and record.tokens.completion > 1 and record.outcome == "finished":
                per_token = (record.duration_s - record.ttft_s) / (record.tokens.completion - 1)
                found["flotilla_time_per_output_token_seconds"].labels(*who).observe(per_token)
        if cost_usd is not None:
            found["flotilla_request_cost_usd"].labels(*who).observe(cost_usd)


def samples(ledger: Ledger) -> Iterable[Sample]:
    """The ledger's truth as samples of the metric table."""
    found = sums.totals(ledger, time.time())
    for name, model in found.models().items():
        yield Sample("flotilla_replicas", (name,), sum(r.alive and r.ready for r in found.replicas if r.model == name))
        yield Sample("flotilla_ledger_folded_steps_total", (name,),
                     sum(r.folded_steps for r in found.replicas if r.model == name))
        for state, ns in (("cold_start", model.cold_ns), ("idle", model.idle_ns), ("busy", model.busy_ns)):
            yield Sample("flotilla_replica_seconds_total", (name, state), ns / 1e9)
        for bucket in ("idle", "cold_start"):
            yield Sample("flotilla_cost_usd_total", (name, "", bucket), usd(model.nanousd[bucket]))
    tokens: dict[tuple[str, str], Any] = {}
    for total in found.tenants:
        yield Sample("flotilla_cost_usd_total", (total.model, total.tenant, total.bucket), usd(total.nanousd))
        who = (total.model, total.tenant)
        tokens[who] = tokens[who] + total.tokens if who in tokens else total.tokens
    for who, count in tokens.items():
        for kind in TOKEN_KINDS:
            yield Sample("flotilla_tokens_total", (*who, kind), count.of(kind))


def targets(ledger: Ledger) -> Iterable[Target]:
    """Replicas whose own metrics may be scraped."""
    for replica in sums.totals(ledger, time.time()).replicas:
        if replica.alive and replica.ready:
            yield Target(replica.endpoint, replica.model, replica.replica_id)


def deploy(fleet: Fleet, sources: dict[str, str], around: Surroundings, env: dict[str, str],
           progress: Progress) -> None:
    """Bring all models up on a connected Ray, one after the other, and then the gateway.

    `sources`: model to hub id or path. `env`: environment of all replicas. Returns when the API answers.
    Raises: RuntimeError of Ray Serve when an application does not come up.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serving.engines.deployment import application
    from serving.engines.names import app_name

    quiet = LoggingConfig(enable_access_log=False)
    sink = functools.partial(open_sink, around.ledger_path)
    for name in fleet.models:
        progress(f"model {name}")
        app = application(fleet, name, sources[name], around.secret, sink, env)
        _run(serve, app, app_name(name), None, quiet)
    progress("gateway")
    entry = serve.ingress(GatewayEntry(fleet, around))(type("Gateway", (), {}))
    gateway_env = env | {"PROMETHEUS_MULTIPROC_DIR": str(around.multiprocess_dir)}
    gateway = serve.deployment(
        entry, name="Gateway", num_replicas=fleet.gateway.replicas, max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=fleet.gateway.request_timeout_s, health_check_period_s=2,
        ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": gateway_env}},
    )
    _run(serve, gateway.bind(), "gateway", "/", quiet)


def _run(serve: Any, app: Any, name: str, route_prefix: str | None, logging_config: Any) -> None:
    """serve.run, with the replica's own words when it fails."""
    try:
        serve.run(app, name=name, route_prefix=route_prefix, logging_config=logging_config)
    except RuntimeError as error:
        found = serve.status().applications.get(name)
        said = [d.message for d in found.deployments.values() if d.message] if found else []
        raise StartFailed("\n".join([*said, str(error)])) from error
