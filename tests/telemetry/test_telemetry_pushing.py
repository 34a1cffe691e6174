"""What gateways count by OpenTelemetry's names arrives at a collector as it does at Prometheus, counted once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality
from otlp_collector import Collector, Point
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import ValidationError

from serving import sidecar
from serving.fleet.observing import MetricsSpec, PushSpec
from serving.telemetry import pushing
from serving.telemetry.genai import NAMED
from serving.telemetry.pushing import Pusher

GATEWAY = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.meter import PrometheusMeter
meter = PrometheusMeter({{}}, gen_ai=True)
for n in range(int(sys.argv[1])):
    code = 503 if n == 2 else 200
    meter.answered(RequestRecord("flo-1", "", "secret-team", "k1", "qwen", "chat_completions", code,
                                 "failed" if code == 503 else "finished", 0.0, 1.0 + n, True, 0.15, Tokens(5, 0, 11)),
                   None)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gateways counted: three requests, and two."""
    folder = tmp_path_factory.mktemp("counters")
    count(folder, 3, 2)
    return folder


def pusher(collector: Collector, folder: Path) -> Pusher:
    spec = MetricsSpec(gen_ai=True, push=PushSpec(endpoint=collector.endpoint, every_s=60))
    found = pushing.pusher(spec, "sample", folder)
    assert found is not None
    return found


def count(folder: Path, *gateways: int) -> None:
    """That many requests of gateways that run one after the other."""
    for requests in gateways:
        subprocess.run([sys.executable, "-c", GATEWAY, str(requests)], check=True,
                       env={"PROMETHEUS_MULTIPROC_DIR": str(folder)})


def of(points: list[Point], name: str, **attributes: str) -> Point:
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    point, = (p for p in points if p.name == name and wanted.items() <= p.attributes.items())
    return point


def test_two_gateways_are_one_sum_at_the_collector_by_its_own_names(collector: Collector, counters: Path) -> None:
    assert pusher(collector, counters).push()
    points = collector.points
    assert {(p.name, p.unit) for p in points} == {(n.name, n.unit) for n in NAMED}
    who = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "flotilla", "gen_ai.request.model": "qwen"}
    assert all(p.attributes.items() >= who.items() for p in points)
    good, = (p for p in points if p.name == "gen_ai.server.request.duration" and "error.type" not in p.attributes)
    assert (good.count, good.sum, sum(good.counts)) == (4, 1 + 2 + 1 + 2, 4)
    assert of(points, "gen_ai.server.request.duration", error__type="503").count == 1
    first = of(points, "gen_ai.server.time_to_first_token")
    assert first.counts[first.bounds.index(0.25)] == first.count == 4, "in the bucket from 0.1 to 0.25, and in no other"
    assert len(first.counts) == len(first.bounds) + 1
    assert of(points, "gen_ai.client.token.usage", gen_ai__token__type="output").sum == 55
    assert not [p for p in points if "secret-team" in str(p)], "tenants are not told"
    assert {p.temporality for p in points} == {2} and AggregationTemporality.CUMULATIVE.value == 2
    assert good.resource["service.name"] == "flotilla-gateway" and good.resource["service.namespace"] == "sample"


def test_every_series_counts_what_is_scraped(collector: Collector, counters: Path) -> None:
    assert pusher(collector, counters).push()
    families = {family.name: family for family in MultiProcessCollector(None, path=str(counters)).collect()}
    for named in NAMED:
        scraped = sorted(s.value for s in families[named.metric.name].samples if s.labels.get("le") == "+Inf")
        assert scraped == sorted(p.count for p in collector.points if p.name == named.name)


def test_who_pushes_may_start_again_and_counting_did_not(collector: Collector, tmp_path: Path) -> None:
    count(tmp_path, 1)
    assert pusher(collector, tmp_path).push()
    before = of(collector.points, "gen_ai.server.time_to_first_token")
    count(tmp_path, 1)
    assert pusher(collector, tmp_path).push()
    after = of(collector.points, "gen_ai.server.time_to_first_token")
    assert (before.count, after.count) == (1, 2)
    assert after.since == before.since and after.at > before.at, "else a collector counts the first one twice"


def test_a_thread_pushes_again_and_again_and_at_the_end(collector: Collector, counters: Path) -> None:
    spec = MetricsSpec(gen_ai=True, push=PushSpec(endpoint=collector.endpoint, every_s=600))
    made = pushing.pusher(spec, "sample", counters)
    assert made is not None
    made.start().close()
    assert collector.pushes == 1, "what has come since the last one is not lost"
    made = Pusher(made._collect, made._exporter, made._resource, 1, 0.01).start()
    collector.pushed(lambda points: collector.pushes >= 4)
    made.close()


def test_a_collector_that_is_away_is_told_all_of_it_later(collector: Collector, counters: Path, tmp_path: Path) -> None:
    assert not pusher(collector, tmp_path).push() and not collector.pushes, "nothing has been counted"
    made = pusher(collector, counters)
    away = Pusher(made._collect, pushing.otlp("http://127.0.0.1:9/v1/metrics", 0.2), made._resource, 1, 60)
    assert not away.push()
    assert made.push() and of(collector.points, "gen_ai.server.time_to_first_token").count == 4


def test_a_pods_sidecar_pushes_by_the_fleet_file(collector: Collector, counters: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(f"name: big\nmetrics: {{gen_ai: true, push: {{endpoint: '{collector.endpoint}'}}}}\nmodels: {{}}\n")
    found = sidecar._pusher(file, counters)
    assert found is not None and found.push()
    assert {p.resource["service.namespace"] for p in collector.points} == {"big"}
    file.write_text("name: big\nmodels: {}\n")
    assert sidecar._pusher(file, counters) is None


def test_what_the_fleet_file_may_say() -> None:
    assert pushing.pusher(MetricsSpec(), "sample", Path("none")) is None
    with pytest.raises(ValidationError, match="set gen_ai: true"):
        MetricsSpec(push=PushSpec(endpoint="http://c:4318"))
    with pytest.raises(ValidationError, match="no address of a collector"):
        PushSpec(endpoint="collector:4317")
    assert PushSpec(endpoint="http://c:4318/v1/metrics").url == "http://c:4318/v1/metrics"
