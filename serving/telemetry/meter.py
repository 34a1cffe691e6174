"""How a gateway counts for Prometheus what it did.

May not happen in here: anything that could make a request wait or fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from serving.fleet.records import RequestRecord
from serving.fleet.slos import Slo, kept, time_per_output_token_s
from serving.telemetry.genai import GenAi
from serving.telemetry.metrics import GatewayMetrics


class PrometheusMeter:
    """The gateway's counts for Prometheus. Labelled children are kept: finding one costs as much as using it."""

    def __init__(self, slos: Mapping[str, Slo], registry: CollectorRegistry | None = None,
                 gen_ai: bool = False) -> None:
        """`slos`: what each model promises. `gen_ai`: count by OpenTelemetry's names, too."""
        registry = registry or CollectorRegistry()
        self._slos, self._metrics = slos, GatewayMetrics(registry)
        self._own = {(model, tenant): own for model, slo in slos.items() for tenant, own in slo.own().items()}
        self._gen_ai = GenAi(registry) if gen_ai else None
        self._known: dict[tuple[str, ...], Any] = {}
        for model in slos:  # a series that is there, at 0
            self.queued(model, 0)
            self._of("flotilla_requests_in_flight", model)

    def _of(self, *name_and_labels: str) -> Any:
        found = self._known.get(name_and_labels)
        if found is None:
            name, *labels = name_and_labels
            found = self._known[name_and_labels] = self._metrics[name].labels(*labels)
        return found

    def begin(self, model: str) -> None:
        """A request has been sent to a replica."""
        self._of("flotilla_requests_in_flight", model).inc()

    def end(self, model: str) -> None:
        """It is over."""
        self._of("flotilla_requests_in_flight", model).dec()

    def queued(self, model: str, count: int) -> None:
        """So many wait in this gateway."""
        self._of("flotilla_requests_queued", model).set(count)

    def moved(self, model: str, to: str) -> None:
        """A request goes to a fallback."""
        self._of("flotilla_fallbacks_total", model, to).inc()

    def answered(self, record: RequestRecord, cost_usd: float | None, trace_id: str = "") -> None:
        """Count one request. `trace_id`: of its trace, which becomes an exemplar; empty where it is not traced."""
        of, who, example = self._of, (record.model, record.tenant), {"trace_id": trace_id} if trace_id else None
        of("flotilla_requests_total", *who, record.endpoint, str(record.code)).inc()
        if not record.model:
            return
        of("flotilla_request_duration_seconds", *who, record.endpoint).observe(record.duration_s, example)
        if record.ttft_s is not None:
            of("flotilla_time_to_first_token_seconds", *who).observe(record.ttft_s, example)
            if (per_token := time_per_output_token_s(record)) is not None:
                of("flotilla_time_per_output_token_seconds", *who).observe(per_token, example)
        if (slo := self._slos.get(record.model)) is not None:
            self._held(record, slo, "flotilla_slo_eligible_total", "flotilla_slo_missed_total")
        if (own := self._own.get(who)) is not None:
            self._held(record, own, "flotilla_tenant_promise_eligible_total", "flotilla_tenant_promise_missed_total")
        if cost_usd is not None:
            of("flotilla_request_cost_usd", *who).observe(cost_usd, example)
        if self._gen_ai is not None:
            self._gen_ai.answered(record, example)
        if record.adapter:
            self._by_adapter(record, cost_usd)

    def _held(self, record: RequestRecord, slo: Slo, eligible: str, missed: str) -> None:
        """Which of these promises it could keep, and which it did not."""
        for promise, good in kept(record, slo).items():
            self._of(eligible, record.model, record.tenant, promise).inc()
            bad = self._of(missed, record.model, record.tenant, promise)  # made even where it stays at 0
            if not good:
                bad.inc()

    def _by_adapter(self, record: RequestRecord, cost_usd: float | None) -> None:
        """The same of an adapter, so that it can be told from its model and from others."""
        of, who = self._of, (record.model, record.adapter, record.tenant)
        of("flotilla_adapter_requests_total", *who, str(record.code)).inc()
        if record.tokens is not None:
            for kind in ("prompt", "cached", "completion"):
                of("flotilla_adapter_tokens_total", *who, kind).inc(getattr(record.tokens, kind))
        if cost_usd is not None:
            of("flotilla_adapter_cost_usd_total", *who).inc(cost_usd)
