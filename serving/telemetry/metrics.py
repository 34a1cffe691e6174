"""Every metric of Flotilla in one table. Names, labels, units and buckets stand here and nowhere else.

`source` says who knows the truth: gateways count what they answered (prometheus_client's multiprocess files, added up
over all gateway processes), and Ray Serve's controller what it decided, the same way; costs, tokens and replica time
come from the ledger, so that they equal the bill, include requests whose caller has gone, and survive restarts; what
the exporter sees of its machine itself is there while the ledger is away, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

from serving.fleet.autoscaling.signals import REASONS
from serving.telemetry import exemplars

TIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
TOKEN_TIME_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
COST_BUCKETS = tuple(m * 10.0**e for e in range(-9, 1) for m in (1.0, 2.0, 5.0))


@dataclass(frozen=True)
class Metric:
    """One metric family. `named`: its tenants are bounded by the fleet file, and none is counted as other."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    source: Literal["gateway", "controller", "ledger", "exporter"]
    buckets: tuple[float, ...] = ()
    named: bool = False

    @property
    def unit(self) -> str:
        """What it is counted in."""
        name = self.name.removesuffix("_total")
        return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "1")


@dataclass(frozen=True)
class Label:
    """What a label says, and how many values it can have."""

    meaning: str
    bound: str


_UNITS = {"_seconds": "seconds", "_nanousd": "nano-USD", "_usd": "USD", "_bytes": "bytes", "_ratio": "ratio"}
LABELS = {
    "model": Label("Model of the fleet file; empty where none was found or none is concerned.", "models + 1"),
    "adapter": Label("LoRA adapter as requests name it, model:adapter.", "adapters there are"),
    "tenant": Label("Tenant of the key; empty where no key was good or no one is charged.",
                    "metrics.max_tenants (100) + 2: those who come later are other"),
    "endpoint": Label("Endpoint of the API, such as chat_completions.", "endpoints of the API, about 20"),
    "code": Label("Status; 499: the caller left.", "about 20"),
    "to": Label("Model that was asked instead.", "models"),
    "promise": Label("availability, ttft, tpot, goodput.", "4"),
    "kind": Label("prompt, cached (part of prompt), completion.", "3"),
    "bucket": Label("direct, waste, idle, cold_start, overhead.", "5"),
    "comparator": Label("API that the traffic is held against.", "comparators of a model, about 3"),
    "variant": Label("Accelerator that a replica runs on.", "variants of a model"),
    "period": Label("day, month (UTC).", "2"),
    "mark": Label("hard, soft.", "2"),
    "state": Label("cold_start, idle, busy.", "3"),
    "role": Label("gateway, replica.", "2"),
    "reason": Label("Why there are to be so many replicas: " + ", ".join(REASONS) + ".", str(len(REASONS))),
    "process": Label("Kind of process that wrote to the spool.", "5"),
}
METRICS = (
    Metric("flotilla_requests_total", "counter", ("model", "tenant", "endpoint", "code"),
           "Requests answered. model is empty where none was found, tenant where no key was good.", "gateway"),
    Metric("flotilla_time_to_first_token_seconds", "histogram", ("model", "tenant"),
           "From the request's arrival at the gateway to the first byte of its stream.", "gateway", TIME_BUCKETS),
    Metric("flotilla_time_per_output_token_seconds", "histogram", ("model", "tenant"),
           "Mean time per output token after the first, of one stream.", "gateway", TOKEN_TIME_BUCKETS),
    Metric("flotilla_request_duration_seconds", "histogram", ("model", "tenant", "endpoint"),
           "From the request's arrival at the gateway to the last byte of its answer.", "gateway", TIME_BUCKETS),
    Metric("flotilla_requests_in_flight", "gauge", ("model",), "Requests being answered now.", "gateway"),
    Metric("flotilla_requests_queued", "gauge", ("model",),
           "Requests that wait in gateways for a seat at a replica, or for a first replica.", "gateway"),
    Metric("flotilla_fallbacks_total", "counter", ("model", "to"),
           "Requests that went to a fallback because their model was down, full or at zero.", "gateway"),
    Metric("flotilla_request_cost_usd", "histogram", ("model", "tenant"),
           "Cost of one answered request, fully loaded, as its usage.cost says.", "gateway", COST_BUCKETS),
    Metric("flotilla_adapter_requests_total", "counter", ("model", "adapter", "tenant", "code"),
           "Requests answered by a LoRA adapter: part of flotilla_requests_total.", "gateway"),
    Metric("flotilla_adapter_tokens_total", "counter", ("model", "adapter", "tenant", "kind"),
           "Tokens of requests to an adapter, as their answers say: prompt, cached (part of prompt), completion. "
           "`flotilla usage --by adapter` also has those of callers who left.", "gateway"),
    Metric("flotilla_adapter_cost_usd_total", "counter", ("model", "adapter", "tenant"),
           "Cost of answered requests to an adapter, fully loaded, as their usage.cost says: part of "
           "flotilla_request_cost_usd.", "gateway"),
    Metric("flotilla_slo_eligible_total", "counter", ("model", "tenant", "promise"),
           "Requests that a promise of the fleet file's slo was made to: availability, ttft, tpot, goodput (all at "
           "once). Errors of callers are left out.", "gateway"),
    Metric("flotilla_slo_missed_total", "counter", ("model", "tenant", "promise"),
           "Those of flotilla_slo_eligible_total that did not get what the promise says.", "gateway"),
    Metric("flotilla_tenant_promise_eligible_total", "counter", ("model", "tenant", "promise"),
           "Requests of tenants that the fleet file's slo makes promises of their own to: those that count for them. "
           "Only these tenants, so all of them are named.", "gateway", named=True),
    Metric("flotilla_tenant_promise_missed_total", "counter", ("model", "tenant", "promise"),
           "Those of flotilla_tenant_promise_eligible_total that did not get what the tenant's own promise says.",
           "gateway", named=True),
    Metric("flotilla_tokens_total", "counter", ("model", "tenant", "kind"),
           "Tokens of ended requests, as the engine counts: prompt, cached (part of prompt), completion.", "ledger"),
    Metric("flotilla_cost_usd_total", "counter", ("model", "tenant", "bucket"),
           "Where the bill went. direct and waste, of ended requests, have their tenant; idle and cold_start have the "
           "one that owns them by the fleet file, or none; overhead (gateways, head node, storage) has no model.",
           "ledger"),
    Metric("flotilla_allocated_cost_usd_total", "counter", ("model", "tenant", "bucket"),
           "Idle time and cold starts that ended requests were charged with: part of those buckets of "
           "flotilla_cost_usd_total, and with direct and waste the fully loaded cost.", "ledger"),
    Metric("flotilla_counterfactual_usd_total", "counter", ("model", "tenant", "comparator"),
           "What the tokens of ended requests would have cost at this API.", "ledger"),
    Metric("flotilla_attribution_residual_nanousd", "gauge", (),
           "How far the books are from the bill, by `flotilla cost reconcile`: 0, or something is wrong.", "ledger"),
    Metric("flotilla_budget_usd", "gauge", ("model", "tenant", "period", "mark"),
           "A budget's mark: of a tenant (model is empty), of a model (tenant is empty), or of a tenant on one model.",
           "ledger"),
    Metric("flotilla_budget_spent_usd", "gauge", ("model", "tenant", "period"),
           "What of a budget is spent: the fully loaded cost of its period's requests that have ended.", "ledger"),
    Metric("flotilla_budget_end_timestamp_seconds", "gauge", ("model", "tenant", "period"),
           "When a budget begins anew, Unix time.", "ledger"),
    Metric("flotilla_step_model_fitted", "gauge", ("model", "variant"),
           "Whether all running replicas share steps by a model fitted to them (1), or one still by the prior (0).",
           "ledger"),
    Metric("flotilla_step_model_error_ratio", "gauge", ("model", "variant"),
           "Mean absolute error of the step time predicted over the mean step time, of the worst running replica. "
           "None while there is no fit.", "ledger"),
    Metric("flotilla_busy_ratio", "gauge", ("model",),
           "Part of the time of ready replicas in which their engine worked, over the last 5 minutes; until that long "
           "has been seen, since what was seen first.", "ledger"),
    Metric("flotilla_utilisation_ratio", "gauge", ("model",),
           "Requests that a replica answers over those that it could when full, by `flotilla cost breakeven`. None "
           "while there is no fit.", "ledger"),
    Metric("flotilla_breakeven_utilisation_ratio", "gauge", ("model", "comparator"),
           "The utilisation at which a request costs what it costs at this API; above 1 it never does.", "ledger"),
    Metric("flotilla_replica_seconds_total", "counter", ("model", "state"),
           "Replica time: cold_start, idle, busy.", "ledger"),
    Metric("flotilla_replicas", "gauge", ("model",), "Replicas that take requests now.", "ledger"),
    Metric("flotilla_autoscale_target_replicas", "gauge", ("model",),
           "Replicas that there are to be, by the last decision; flotilla_replicas are those that there are. Only of "
           "models that scale.", "controller"),
    Metric("flotilla_autoscale_decisions_total", "counter", ("model", "reason"),
           "Decisions about how many replicas there are to be, every other second, by their reason.", "controller"),
    Metric("flotilla_ledger_folded_steps_total", "counter", ("model",),
           "Engine steps that were booked together because the books were busy.", "ledger"),
    Metric("flotilla_ledger_unmetered_requests_total", "counter", ("role",),
           "Requests of which a gateway could keep no row, or a replica no charge, because the ledger was away and the "
           "spool full.", "ledger"),
    Metric("flotilla_ledger_spool_bytes", "gauge", ("process",),
           "Rows on this machine's disk that wait for the ledger, by the kind of process that wrote them.", "exporter"),
    Metric("flotilla_ledger_up", "gauge", (),
           "Whether the ledger can be read (1). While it cannot (0), all that comes from it is left out.", "exporter"),
)
BY_NAME = {m.name: m for m in METRICS}
_KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class GatewayMetrics:
    """The metrics that a gateway process counts itself.

    With PROMETHEUS_MULTIPROC_DIR in the environment when prometheus_client is first imported, all gateway processes of
    a machine write to files there and the exporter adds them up; without it they live in `registry` alone.
    """

    def __init__(self, registry: CollectorRegistry | None = None, table: tuple[Metric, ...] = METRICS,
                 source: Literal["gateway", "controller"] = "gateway") -> None:
        """`table`: of it, those of `source`. A process's first table decides where all of them are kept."""
        registry = registry or CollectorRegistry()
        if table is METRICS and (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
            pid = os.getpid()  # asked for at every count, it took a tenth of a request
            mark_process_dead(pid, folder)  # in a container that starts again, who had this id before was in flight
            values.ValueClass = exemplars.value_class(Path(folder), pid)
        self._families = {}
        for metric in table:
            if metric.source != source:
                continue
            options: dict[str, object] = {"registry": registry}
            if metric.kind == "histogram":
                options["buckets"] = metric.buckets
            if metric.kind == "gauge":
                options["multiprocess_mode"] = "livesum"
            self._families[metric.name] = _KINDS[metric.kind](metric.name, metric.help, metric.labels, **options)

    def __getitem__(self, name: str) -> Counter | Gauge | Histogram:
        return self._families[name]
