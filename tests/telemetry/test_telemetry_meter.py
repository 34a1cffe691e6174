"""What a gateway counts of one request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from serving.fleet.records import RequestRecord, Tokens
from serving.fleet.slos import Slo
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
