"""What a gateway counts of one request."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry

from serving.fleet.records import RequestRecord, Tokens
from serving.fleet.slos import Slo, TenantSlo
from serving.telemetry.meter import PrometheusMeter


def counted(registry: CollectorRegistry, name: str, promise: str) -> float | None:
    return registry.get_sample_value(name, {"model": "qwen", "tenant": "demo", "promise": promise})


def record(code: int = 200, ttft_s: float = 0.1) -> RequestRecord:
    return RequestRecord("flo-1", "", "demo", "k1", "qwen", "chat_completions", code, "finished", 0.0, 1.1, True,
                         ttft_s, Tokens(5, 0, 11))


def test_promises_are_counted_by_model_tenant_and_promise() -> None:
    registry = CollectorRegistry()
    meter = PrometheusMeter({"qwen": Slo(ttft_ms=500, tpot_ms=50)}, registry)
    meter.answered(record(), 1e-6)
    meter.answered(record(ttft_s=0.9), 1e-6)
    assert counted(registry, "flotilla_slo_eligible_total", "ttft") == 2
    assert counted(registry, "flotilla_slo_missed_total", "ttft") == 1
    assert counted(registry, "flotilla_slo_missed_total", "tpot") == 1, "100 ms a token, then 20"
    assert counted(registry, "flotilla_slo_missed_total", "availability") == 0, "a series that is there, at 0"


def test_a_tenants_own_promises_are_counted_beside_the_models() -> None:
    registry = CollectorRegistry()
    slo = Slo(ttft_ms=500, tpot_ms=50, tenants={"demo": TenantSlo(ttft_ms=50), "other": TenantSlo(ttft_ms=1)})
    meter = PrometheusMeter({"qwen": slo}, registry)
    meter.answered(record(), 1e-6)
    meter.answered(replace(record(), tenant="third"), 1e-6)
    for promise, to_all, own in (("ttft", 0, 1), ("availability", 0, 0), ("tpot", 1, 1), ("goodput", 1, 1)):
        assert counted(registry, "flotilla_slo_missed_total", promise) == to_all
        assert counted(registry, "flotilla_tenant_promise_missed_total", promise) == own
        assert counted(registry, "flotilla_tenant_promise_eligible_total", promise) == 1
    assert registry.get_sample_value("flotilla_tenant_promise_eligible_total", {
        "model": "qwen", "tenant": "third", "promise": "ttft"}) is None, "nothing was promised to it alone"


def test_gauges_of_every_model_are_there_from_the_start() -> None:
    registry = CollectorRegistry()
    PrometheusMeter({"qwen": Slo(ttft_ms=500, tpot_ms=50)}, registry)
    for name in ("flotilla_requests_queued", "flotilla_requests_in_flight"):
        assert registry.get_sample_value(name, {"model": "qwen"}) == 0


def test_what_a_caller_spoiled_and_models_without_promises_are_not_counted() -> None:
    registry = CollectorRegistry()
    PrometheusMeter({"qwen": Slo(ttft_ms=500, tpot_ms=50)}, registry).answered(record(404), None)
    assert counted(registry, "flotilla_slo_eligible_total", "availability") is None
    other = CollectorRegistry()
    PrometheusMeter({}, other).answered(record(), None)
    assert counted(other, "flotilla_slo_eligible_total", "availability") is None
    assert other.get_sample_value("flotilla_requests_total", {
        "model": "qwen", "tenant": "demo", "endpoint": "chat_completions", "code": "200"}) == 1


def test_what_adapters_did_is_told_apart_from_their_model_and_from_each_other() -> None:
    registry = CollectorRegistry()
    meter = PrometheusMeter({}, registry)
    meter.answered(record(), 1e-6)
    for adapter in ("qwen:tone", "qwen:tone", "qwen:short"):
        meter.answered(replace(record(), adapter=adapter), 2e-6)
    meter.answered(replace(record(499), adapter="qwen:short", tokens=None), None)

    def of(name: str, adapter: str, **labels: str) -> float | None:
        found = {"model": "qwen", "adapter": adapter, "tenant": "demo", **labels}
        return registry.get_sample_value(f"flotilla_adapter_{name}_total", found)

    assert (of("requests", "qwen:tone", code="200"), of("requests", "qwen:short", code="200")) == (2, 1)
    assert of("requests", "qwen:short", code="499") == 1
    assert (of("tokens", "qwen:tone", kind="prompt"), of("tokens", "qwen:short", kind="completion")) == (10, 11)
    assert (of("cost_usd", "qwen:tone"), of("cost_usd", "qwen:short")) == (4e-6, 2e-6)
    assert of("requests", "", code="200") is None, "the model's own requests are no adapter's"
    whole = {"model": "qwen", "tenant": "demo", "endpoint": "chat_completions", "code": "200"}
    assert registry.get_sample_value("flotilla_requests_total", whole) == 4
