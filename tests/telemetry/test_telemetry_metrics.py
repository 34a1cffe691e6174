"""The metric table keeps Prometheus' conventions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Metric_
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import program

from serving.telemetry import reference
from serving.telemetry.genai import NAMED
from serving.telemetry.metrics import BY_NAME, LABELS, METRICS, GatewayMetrics, Metric

UNITS = ("_seconds", "_usd", "_total", "_bytes", "_ratio")
UNITLESS = {"flotilla_requests_in_flight", "flotilla_requests_queued", "flotilla_replicas",  # counts of things
            "flotilla_autoscale_target_replicas",
            "flotilla_step_model_fitted", "flotilla_ledger_up"}  # yes or no
EXACT = {"flotilla_attribution_residual_nanousd"}  # 0 or wrong: not even a rounded float may hide one of these
FLEETWIDE = {"flotilla_attribution_residual_nanousd", "flotilla_ledger_up", "flotilla_ledger_spool_bytes",
             "flotilla_ledger_unmetered_requests_total"}  # of the ledger, which is one for all models


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_name_says_whose_it_is_and_in_which_unit(metric: Metric) -> None:
    assert re.fullmatch(r"flotilla(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith(UNITS) or metric.name in UNITLESS | EXACT
    assert not metric.name.endswith(("_bucket", "_sum", "_count", "_created", "_info"))
    assert metric.name in EXACT or not re.search(r"_(ms|milliseconds|minutes|hours|nanousd)(_|$)", metric.name)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_labels_are_few_and_bounded(metric: Metric) -> None:
    assert len(set(metric.labels)) == len(metric.labels)
    assert set(metric.labels) <= set(LABELS)
    assert metric.name in FLEETWIDE or metric.labels[0] == "model"


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_buckets_rise_and_belong_to_histograms(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert all(bucket > 0 for bucket in metric.buckets)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_help_is_a_sentence(metric: Metric) -> None:
    assert metric.help[0].isupper()
    assert metric.help.endswith(".")


def test_no_name_twice() -> None:
    assert len(BY_NAME) == len(METRICS)


def test_every_label_is_used_and_the_page_is_current() -> None:
    assert {label for metric in METRICS for label in metric.labels} == set(LABELS)
    page = Path(__file__).resolve().parents[2] / "deployments" / "docs" / "metrics.md"
    assert page.read_text() == reference.page(), "flotilla metrics --markdown > deployments/docs/metrics.md"


def test_the_gateway_counts_its_own_and_nothing_of_the_ledgers() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    metrics["flotilla_requests_in_flight"].labels("qwen").inc(3)
    metrics["flotilla_request_cost_usd"].labels("qwen", "demo").observe(2e-6)
    families = {f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())}
    own = {m.name.removesuffix("_total") for m in METRICS if m.source == "gateway"}
    assert {name for name in families if not name.endswith("_created")} == own
    assert families["flotilla_requests_in_flight"].samples[0].value == 3
    buckets = {
        s.labels["le"]: s.value
        for s in families["flotilla_request_cost_usd"].samples
        if s.name.endswith("_bucket")
    }
    assert (buckets["1e-06"], buckets["2e-06"]) == (0, 1)
    with pytest.raises(KeyError):
        metrics["flotilla_cost_usd_total"]


class Given:
    """A collector of one family."""

    def __init__(self, family: Metric_) -> None:
        self._family = family

    def collect(self) -> list[Metric_]:
        return [self._family]


def test_prometheus_own_tool_finds_nothing_to_say_about_any_of_them() -> None:
    registry = CollectorRegistry()
    for metric in (*METRICS, *(named.metric for named in NAMED)):
        family = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}.get(metric.kind)
        if family is None:
            found = Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
            found.labels(*metric.labels).observe(0.1)
            continue
        made = family(metric.name, metric.help, labels=metric.labels)
        made.add_metric(metric.labels, 1)
        registry.register(Given(made))
    said = subprocess.run([program("promtool"), "check", "metrics"], input=generate_latest(registry),
                          capture_output=True)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")
