"""Whatever a dashboard shows is the same for one gateway and for three that share its work, on one machine or in pods.

What real gateway processes counted is fetched from real exporters, minute by minute, put into the real Prometheus as it
would have scraped it, and every query of every dashboard is put to it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from pathlib import Path

import prometheus_server
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_server import Prometheus

from serving.fleet.slos import Slo, TenantSlo
from serving.telemetry.dashboards.build import Panel, dashboards
from serving.telemetry.exporter import Sample, serve, serve_pod
from serving.telemetry.metrics import METRICS
from serving.telemetry.rules.build import rule_file

REPOSITORY = Path(__file__).parents[2]
MINUTES, EACH = 8, (6, 4, 2)  # requests that the three answer in a minute
SLO = Slo(ttft_ms=500, tpot_ms=50, tenants={"shop": TenantSlo(ttft_ms=200)})
GATEWAY = f"""
import json, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from serving.fleet.records import RequestRecord, Tokens
from serving.fleet.slos import Slo
from serving.telemetry.meter import PrometheusMeter
meter = PrometheusMeter({{"qwen": Slo.model_validate_json({SLO.model_dump_json(exclude_defaults=True)!r})}})
for line in sys.stdin:
    asked = json.loads(line)
    for n in asked["requests"]:
        code, tenant = (503 if n % 6 == 5 else 200), ("shop", "search")[n % 2]
        meter.answered(RequestRecord("flo-1", "", tenant, "k1", "qwen", "chat_completions", code,
                                     "failed" if code == 503 else "finished", 0.0, 1.0 + n, True, 0.1 * (n + 1),
                                     Tokens(5, 0, 11)), 1e-6 * (n + 1))
        meter.moved("qwen", "llama")
    for _ in range(asked["queued"]):
        meter.begin("qwen")
    meter.queued("qwen", asked["queued"])
    print("counted", flush=True)
"""


def truth(minute: int) -> Iterator[Sample]:
    """The ledger at this time: every metric of it that the table has."""
    known = {"model": "qwen", "tenant": "shop", "bucket": "direct", "kind": "completion", "state": "cold_start"}
    for metric in METRICS:
        if metric.source == "ledger":
            labels = tuple(known.get(name, "one") for name in metric.labels)
            yield Sample(metric.name, labels, 60.0 * minute if metric.kind == "counter" else 2.0)
    yield Sample("flotilla_tokens_total", ("qwen", "shop", "prompt"), 30.0 * minute)
    yield Sample("flotilla_tokens_total", ("qwen", "shop", "cached"), 10.0 * minute)
    yield Sample("flotilla_cost_usd_total", ("qwen", "shop", "waste"), 1.0 * minute)
    yield Sample("flotilla_allocated_cost_usd_total", ("qwen", "shop", "idle"), 2.0 * minute)


def engines(share: int) -> Iterator[GaugeMetricFamily]:
    """What a pod's replica of vLLM says, each a third."""
    for name, value in (("vllm:num_requests_running", 3), ("vllm:num_requests_waiting", 6), ("vllm:kv_cache_usage_perc",
                                                                                             0.5)):
        family = GaugeMetricFamily(name, name, labels=["model", "replica"])
        family.add_metric(["qwen", f"r{share}"], value)
        yield family


CONTROLLER = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from serving.telemetry.scaling import ScalingMeter
meter = ScalingMeter(sys.argv[1])
for line in sys.stdin:
    meter.decided("qwen", "demand", 3)
    print("counted", flush=True)
"""


class World:
    """Gateways and exporters. `targets`: by instance, what Prometheus would scrape there."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.minute = 0
        self._gateways: list[tuple[subprocess.Popen[str], tuple[int, ...]]] = []
        self._servers: dict[str, ThreadingHTTPServer] = {}

    def gateway(self, counters: Path, *shares: int) -> None:
        """One that does the work of these three."""
        counters.mkdir(parents=True, exist_ok=True)
        made = subprocess.Popen([sys.executable, "-c", GATEWAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True, env={"PROMETHEUS_MULTIPROC_DIR": str(counters)})
        self._stack.callback(made.communicate)
        self._stack.callback(made.kill)
        self._gateways.append((made, shares))

    def controller(self, counters: Path) -> None:
        """What decides how many replicas there are to be; a fleet has one."""
        counters.mkdir(parents=True, exist_ok=True)
        made = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(counters)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True, env={})
        self._stack.callback(made.communicate)
        self._stack.callback(made.kill)
        self._gateways.append((made, ()))

    def exporter(self, instance: str, server: ThreadingHTTPServer) -> None:
        """Something to scrape."""
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)
        self._servers[instance] = server

    def fleet(self, counters: Path, local: Callable[[], Iterable[Sample]] = tuple) -> None:
        """The fleet's exporter."""
        counters.mkdir(parents=True, exist_ok=True)
        self.exporter("fleet", serve("127.0.0.1", 0, str(counters), lambda: truth(self.minute), tuple, local))

    def history(self, now: int) -> str:
        """All that is scraped in these minutes, as OpenMetrics with times and instances."""
        lines: dict[str, list[str]] = {}
        for self.minute in range(MINUTES):
            for gateway, shares in self._gateways:
                requests = [n + sum(EACH[:s]) for s in shares for n in range(EACH[s])] if self.minute else []
                gateway.stdin.write(json.dumps({"requests": requests, "queued": len(shares)}) + "\n")
                gateway.stdin.flush()
            for gateway, _ in self._gateways:
                assert gateway.stdout.readline() == "counted\n"
            at = now - 60 * (MINUTES - 1 - self.minute)
            for instance, server in self._servers.items():
                self._scraped(lines, instance, server, at)
        return "\n".join(line for family in lines.values() for line in family) + "\n# EOF\n"

    @staticmethod
    def _scraped(lines: dict[str, list[str]], instance: str, server: ThreadingHTTPServer, at: int) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/metrics",
                                         headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        family: list[str] = []
        for line in text.splitlines():
            if line.startswith("# TYPE"):
                family = lines.setdefault(line, [line])
            elif not line.startswith("#"):
                name, labels, value = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()
                family.append(f'{name}{{{labels or ""}{"," if labels else ""}instance="{instance}"}} {value} {at}')


def one_gateway(world: World, folder: Path) -> None:
    """The truth: nothing is counted anywhere twice."""
    world.gateway(folder / "counters", 0, 1, 2)
    world.controller(folder / "counters")
    world.fleet(folder / "counters", lambda: [Sample("flotilla_ledger_spool_bytes", ("gateway",), 300)])
    _engines_beside(world, folder)


def three_on_one_machine(world: World, folder: Path) -> None:
    for share in range(3):
        world.gateway(folder / "counters", share)
    world.controller(folder / "counters")
    world.fleet(folder / "counters", lambda: [Sample("flotilla_ledger_spool_bytes", ("gateway",), 300)])
    _engines_beside(world, folder)


def three_pods(world: World, folder: Path) -> None:
    world.fleet(folder / "head")
    world.controller(folder / "head")
    for share in range(3):
        counters = folder / f"pod-{share}"
        world.gateway(counters, share)
        world.exporter(f"pod-{share}", serve_pod(
            "127.0.0.1", 0, str(counters), lambda share=share: engines(share),
            lambda: [Sample("flotilla_ledger_spool_bytes", ("gateway",), 100)]))


def _engines_beside(world: World, folder: Path) -> None:
    """On one machine Prometheus scrapes each replica itself."""
    empty = folder / "no-counters"
    empty.mkdir(parents=True)
    for share in range(3):
        world.exporter(f"replica-{share}", serve_pod("127.0.0.1", 0, str(empty), lambda share=share: engines(share)))


NOW = int(time.time()) // 60 * 60
WORLDS = (one_gateway, three_on_one_machine, three_pods)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Prometheus]]:
    """A Prometheus for each."""
    promtool = prometheus_server.program("promtool")
    with ExitStack() as stack:
        made: dict[str, Prometheus] = {}
        for build in WORLDS:
            folder = tmp_path_factory.mktemp(build.__name__)
            with ExitStack() as while_counting:
                world = World(folder, while_counting)
                build(world, folder)
                (folder / "history.txt").write_text(world.history(NOW))
            done = subprocess.run([promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "history.txt"),
                                   str(folder / "data")], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "prometheus.yml").write_text("{}")
            made[build.__name__] = stack.enter_context(prometheus_server.running(folder))
        yield made


RULES = [rule for group in rule_file({"qwen": SLO}, 1)["groups"] for rule in group["rules"] if "record" in rule]


def recorded(name: str) -> str:
    """What records a series; series of one value each have several rules."""
    rules = [rule for rule in RULES if rule["record"] == name]
    if "labels" not in rules[0]:
        return rules[0]["expr"]
    each = []
    for rule in rules:
        expr = rule["expr"]
        for label, value in rule["labels"].items():
            expr = f'label_replace({expr}, "{label}", "{value}", "", "")'
        each.append(expr)
    return " or ".join(each)


def asked(query: str) -> str:
    """With the reader's choices, and what rules would have recorded put in."""
    query = re.sub(r"\$(model|tenant)", ".*", query).replace("$__rate_interval", "5m")
    for _ in range(2):
        query = re.sub(r"(flotilla:[\w:]+)(\{[^}]*\})?",
                       lambda found: f"({recorded(found[1])})", query)
    return query


def shown(prometheus: Prometheus, query: str) -> list[tuple[dict[str, str], float]]:
    """What is drawn, whichever instance told it."""
    found = [({k: v for k, v in labels.items() if k not in ("instance", "job", "__name__")}, round(value, 9))
             for labels, value in prometheus.series(asked(query), NOW)]
    return sorted(found, key=repr)


PANELS = [(board.uid, panel) for board in dashboards() for panel in board.panels]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board}: {panel.title}" for board, panel in PANELS])
def test_a_panel_shows_the_same_however_many_gateways_there_are(
        worlds: dict[str, Prometheus], board: str, panel: Panel) -> None:
    for query in panel.queries.values():
        found = {name: shown(prometheus, query) for name, prometheus in worlds.items()}
        assert found["one_gateway"], query
        assert found["three_on_one_machine"] == found["one_gateway"], query
        assert found["three_pods"] == found["one_gateway"], query


@pytest.mark.parametrize(("board", "title", "true"), [
    ("flotilla-fleet", "Requests per second", sum(EACH) / 60),
    ("flotilla-fleet", "In flight and queued", MINUTES * 3 + 3),
    ("flotilla-fleet", "Output tokens per second", 1.0),
    ("flotilla-fleet", "Cost of the fleet", 3600 * 61 / 60),
    ("flotilla-gateway", "Answers by endpoint", sum(EACH) / 60),
    ("flotilla-gateway", "Fallbacks per second", sum(EACH) / 60),
    ("flotilla-gateway", "Rows that wait on disk", 300),
    ("flotilla-model", "Running and waiting", 27),
    ("flotilla-model", "Replicas that serve", 2),
    ("flotilla-autoscaling", "Replicas that serve", 2),
    ("flotilla-autoscaling", "Replicas that are to serve", 3)])
def test_sums_are_the_truth(worlds: dict[str, Prometheus], board: str, title: str, true: float) -> None:
    panel = next(p for uid, p in PANELS if (uid, p.title) == (board, title) and p.kind != "stat" or
                 (uid, p.title, title) == (board, title, "Cost of the fleet"))
    drawn = [value for query in panel.queries.values() for _, value in shown(worlds["one_gateway"], query)]
    assert sum(drawn) == pytest.approx(true, rel=1e-6), title
