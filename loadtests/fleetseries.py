"""What the fleet itself said while it was loaded: samples of its metrics, from the text that Prometheus scrapes.

Pure: text in, values out; `scraping` fetches. Only what a load test is read beside is kept (replicas, cold starts,
queues, work under way, KV cache, the bill), so that a soak of hours stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.errors import ReportError

#: Of the fleet's exporter: the metric, which labels it must have, and the field that its values are added up in.
_FLEET = (
    ("flotilla_replicas", {}, "replicas"),
    ("flotilla_requests_queued", {}, "queued"),
    ("flotilla_requests_in_flight", {}, "in_flight"),
    ("flotilla_replica_seconds_total", {"state": "cold_start"}, "cold_start_s"),
    ("flotilla_cost_usd_total", {}, "cost_usd"),
)
#: Of the engines.
_ENGINES = (("vllm:num_requests_running", "running"), ("vllm:num_requests_waiting", "waiting"))
_KV = "vllm:kv_cache_usage_perc"
_NAMES = (*(name for name, _, _ in _FLEET), *(name for name, _ in _ENGINES), _KV)


class ModelSample(BaseModel):
    """One model at one moment; None where nothing said so. cold_start_s and cost_usd only grow. kv_used: share of the
    KV cache, the mean over engines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: float | None = None
    queued: float | None = None
    in_flight: float | None = None
    cold_start_s: float | None = None
    cost_usd: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_used: float | None = None


class FleetSample(BaseModel):
    """One scrape. at_unix: when it was asked for. models: "" is what belongs to no model (overhead of the fleet)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_unix: float
    models: dict[str, ModelSample]


def sample_of(at_unix: float, fleet: str, engines: Iterable[tuple[str, str]]) -> FleetSample:
    """A sample of the exporter's text and of engines' texts, each with its model's name. Raises ValueError for text
    that is no exposition."""
    sums: dict[str, dict[str, float]] = {}
    for name, labels, value in _samples(fleet):
        for metric, must, field in _FLEET:
            if name == metric and all(labels.get(key) == wanted for key, wanted in must.items()):
                _add(sums, labels.get("model", ""), field, value)
    kv: dict[str, list[float]] = {}
    for model, text in engines:
        for name, _, value in _samples(text):
            for metric, field in _ENGINES:
                if name == metric:
                    _add(sums, model, field, value)
            if name == _KV:
                kv.setdefault(model, []).append(value)
    for model, shares in kv.items():
        sums.setdefault(model, {})["kv_used"] = sum(shares) / len(shares)
    return FleetSample(at_unix=at_unix, models={name: ModelSample(**found) for name, found in sorted(sums.items())})


def _add(sums: dict[str, dict[str, float]], model: str, field: str, value: float) -> None:
    own = sums.setdefault(model, {})
    own[field] = own.get(field, 0.0) + value


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    # An engine tells hundreds of histogram buckets; parsing only what is wanted costs the load test nothing.
    wanted = "".join(line + "\n" for line in text.splitlines() if line.startswith(_NAMES))
    for family in text_string_to_metric_families(wanted):
        for found in family.samples:
            yield found.name, found.labels, found.value


def read_samples(path: Path) -> list[FleetSample]:
    """Samples of a file of JSON lines, in order of time; [] if there is none. A last line without its newline is left
    out. Raises ReportError."""
    if not path.exists():
        return []
    found = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            try:
                found.append(FleetSample.model_validate_json(line))
            except ValidationError as error:
                raise ReportError(f"{path}:{number}: not a sample: {error.errors()[0]['msg']}") from error
    return sorted(found, key=lambda one: one.at_unix)
