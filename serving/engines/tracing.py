"""How vLLM is told to add its own spans to the requests that a gateway traces."""

from __future__ import annotations

from typing import Any

from serving.fleet.observing import TraceSpec


def arguments(spec: TraceSpec) -> dict[str, Any]:
    """Engine arguments."""
    return {"otlp_traces_endpoint": spec.url} if spec.url and spec.engines else {}


def environment(spec: TraceSpec, fleet: str, model: str) -> dict[str, str]:
    """Environment of a replica's processes. `fleet`: its name."""
    if not (spec.url and spec.engines):
        return {}
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",  # only what a gateway traces, which its traceparent says
        "OTEL_SERVICE_NAME": "flotilla-engine",
        "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={fleet},flotilla.model={model}",
    }
