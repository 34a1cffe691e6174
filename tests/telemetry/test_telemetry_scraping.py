"""A fleet's metrics from many pods as one scrape: what they count adds up, and pods come, go and fall silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serving.fleet.slos import Slo
from serving.telemetry import scraping
from serving.telemetry.scraping import Pods
from serving.telemetry.view import Scrape, view

SLOS = {"qwen": Slo(ttft_ms=150, tpot_ms=50)}
EXPORTER, COUNTERS = "http://exporter/metrics", "http://counters/metrics"


class Cluster:
    """Pods by their address, each with the requests that it has counted; None: it does not answer."""

    def __init__(self) -> None:
        self.pods: dict[str, int | None] = {"a": 100, "b": 1000}
        self.now = 0.0

    def read(self, url: str) -> Scrape:
        if url == EXPORTER:
            return Scrape.parse(self.now, "flotilla_ledger_up 1\n"
                                          'flotilla_replicas{model="qwen"} 3\n')
        if (count := self.pods.get(url)) is None:
            raise ConnectionRefusedError(url)
        return Scrape.parse(self.now, "# TYPE flotilla_requests_total counter\n"
                                      f'flotilla_requests_total{{model="qwen",code="200"}} {count}\n'
                                      "# TYPE flotilla_requests_in_flight gauge\n"
                                      'flotilla_requests_in_flight{model="qwen"} 2\n')

    def resolve(self, url: str) -> tuple[str, ...]:
        if not self.pods:
            raise OSError("the name is not known")
        return tuple(self.pods)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def look(cluster: Cluster) -> Callable[[float], Scrape]:
    pods = Pods(EXPORTER, [COUNTERS], cluster.read, cluster.resolve, lambda: cluster.now)

    def at(now: float) -> Scrape:
        cluster.now = now
        return pods()

    return at


def test_pods_add_up(cluster: Cluster, look: Callable[[float], Scrape]) -> None:
    before = look(0.0)
    cluster.pods = {"a": 110, "b": 1030}
    (qwen,) = view(before, look(10.0), SLOS).models
    assert (qwen.requests_per_s, qwen.in_flight, qwen.replicas) == (pytest.approx(4.0), 4, 3)


def test_a_pod_that_goes_takes_its_count_along_and_changes_no_rate(cluster: Cluster,
                                                                   look: Callable[[float], Scrape]) -> None:
    before = look(0.0)
    cluster.pods = {"a": 110}
    assert view(before, look(10.0), SLOS).models[0].requests_per_s == pytest.approx(1.0)


def test_a_pod_that_is_silent_counts_as_it_did_and_not_all_at_once_when_it_speaks(
        cluster: Cluster, look: Callable[[float], Scrape]) -> None:
    look(0.0)
    cluster.pods["b"] = None
    silent = look(10.0)
    assert silent.by("flotilla_requests_total")[()] == 1100
    cluster.pods["b"] = 1010
    assert view(silent, look(12.0), SLOS).models[0].requests_per_s == pytest.approx(5.0)
    cluster.pods["b"] = None
    assert look(50.0).by("flotilla_requests_total")[()] == 100, "for good it does not"


def test_without_pods_there_is_the_ledger(cluster: Cluster, look: Callable[[float], Scrape]) -> None:
    cluster.pods = {}
    assert view(look(0.0), look(1.0), SLOS).ledger_up is True


def test_without_its_exporter_a_fleet_cannot_be_seen(cluster: Cluster) -> None:
    with pytest.raises(OSError):
        Pods("http://gone/metrics", [], cluster.read, cluster.resolve)()


def test_a_name_stands_for_its_addresses() -> None:
    assert "http://127.0.0.1:9464/metrics" in scraping.addresses("http://localhost:9464/metrics")
    with pytest.raises(OSError):
        scraping.addresses("http://no-such-host.invalid:9464/metrics")
