"""OpenTelemetry's names for what a gateway counts, for dashboards that were made for any model server.

Counted beside Flotilla's own and only where the fleet file says so (`metrics: {gen_ai: true}`). Names, attributes and
bounds: https://github.com/open-telemetry/semantic-conventions-genai (in development there). Prometheus is told them as
OpenTelemetry's own exporters would: dots become underscores, and the unit is the name's end. `pushing` tells collectors
the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from serving.fleet.records import RequestRecord
from serving.fleet.slos import time_per_output_token_s
from serving.telemetry.metrics import GatewayMetrics, Metric

PROVIDER = "flotilla"
# what the conventions call what these endpoints do; others go by their own names
OPERATIONS = {"chat_completions": "chat", "messages": "chat", "responses": "chat", "completions": "text_completion",
              "embeddings": "embeddings"}
_WHO = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
_UNITS = {"s": "_seconds", "{token}": ""}  # and how Prometheus' names end
_DURATION_BOUNDS = tuple(0.01 * 2**n for n in range(14))
_FIRST_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKEN_BOUNDS = tuple(float(4**n) for n in range(14))


@dataclass(frozen=True)
class Named:
    """One of their metrics, as they name it and as Prometheus is told. `ours`: the metric of Flotilla's table that says
    the same by tenant."""

    name: str
    unit: str
    attributes: tuple[str, ...]
    metric: Metric
    ours: str

    @classmethod
    def histogram(cls, name: str, ours: str, bounds: tuple[float, ...], help: str, *more: str,
                  unit: str = "s") -> Named:
        """From a name with dots. `more`: attributes beside those that all have."""
        attributes = (*_WHO, *more)
        told, *labels = (dotted.replace(".", "_") for dotted in (name, *attributes))
        return cls(name, unit, attributes,
                   Metric(told + _UNITS[unit], "histogram", tuple(labels), help, "gateway", bounds), ours)


NAMED = (
    Named.histogram("gen_ai.server.request.duration", "flotilla_request_duration_seconds", _DURATION_BOUNDS,
                    "From the request's arrival at the gateway to the last byte of its answer.", "error.type"),
    Named.histogram("gen_ai.server.time_to_first_token", "flotilla_time_to_first_token_seconds", _FIRST_BOUNDS,
                    "From the request's arrival at the gateway to the first byte of a stream that ended well."),
    Named.histogram("gen_ai.server.time_per_output_token", "flotilla_time_per_output_token_seconds", _EACH_BOUNDS,
                    "Mean time per output token after the first, of a stream that ended well."),
    Named.histogram("gen_ai.client.token.usage", "flotilla_tokens_total", _TOKEN_BOUNDS,
                    "Tokens of one request, as the engine counts; gen_ai_token_type: input, output.",
                    "gen_ai.token.type", unit="{token}"),
)
_DURATION, _FIRST, _EACH, _USED = (named.metric.name for named in NAMED)


class GenAi:
    """A gateway's counts by OpenTelemetry's names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = GatewayMetrics(registry, tuple(named.metric for named in NAMED))
        self._known: dict[tuple[str, ...], Any] = {}

    def _of(self, *name_and_labels: str) -> Any:
        found = self._known.get(name_and_labels)
        if found is None:
            name, *labels = name_and_labels
            found = self._known[name_and_labels] = self._metrics[name].labels(*labels)
        return found

    def answered(self, record: RequestRecord, example: dict[str, str] | None) -> None:
        """Count one request of a known model. `example`: its exemplar."""
        of = self._of
        who = OPERATIONS.get(record.endpoint, record.endpoint), PROVIDER, record.model
        error = str(record.code) if record.code >= 400 else "stream_broken" if record.outcome == "failed" else ""
        of(_DURATION, *who, error).observe(record.duration_s, example)
        if record.ttft_s is not None and record.outcome == "finished":
            of(_FIRST, *who).observe(record.ttft_s, example)
            if (per_token := time_per_output_token_s(record)) is not None:
                of(_EACH, *who).observe(per_token, example)
        if record.tokens is not None:
            of(_USED, *who, "input").observe(record.tokens.prompt, example)
            of(_USED, *who, "output").observe(record.tokens.completion, example)
