"""The exporter: two gateways' counts added up, the ledger's truth, and no half answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from serving.errors import LedgerError
from serving.telemetry.exporter import Sample, Target, serve
from serving.telemetry.metrics import METRICS

REPOSITORY = Path(__file__).parents[2]
GATEWAY = f"""
import os, sys
if len(sys.argv) > 2:  # its process id, as containers give the same one again
    os.getpid = lambda: int(sys.argv[2])
sys.path.insert(0, {str(REPOSITORY)!r})
from serving.telemetry.metrics import GatewayMetrics
metrics, count = GatewayMetrics(), int(sys.argv[1])
metrics["flotilla_requests_total"].labels("qwen", "demo", "chat_completions", "200").inc(count)
metrics["flotilla_requests_in_flight"].labels("qwen").inc(count)
for n in range(count):
    metrics["flotilla_time_to_first_token_seconds"].labels("qwen", "demo").observe(0.02)
    metrics["flotilla_request_duration_seconds"].labels("qwen", "demo", "chat_completions").observe(3.0)
print("counted", flush=True)
sys.stdin.read()
"""


@dataclass
class Exporter:
    """An exporter under test and what its ledger says."""

    directory: Path
    samples: Callable[[], Iterable[Sample]] = lambda: ()
    targets: Callable[[], Iterable[Target]] = lambda: ()
    local: Callable[[], Iterable[Sample]] = lambda: ()
    gateways: list[subprocess.Popen] = field(default_factory=list)

    def start(self) -> None:
        self.server = serve(
            "127.0.0.1", 0, str(self.directory), lambda: self.samples(), lambda: self.targets(), lambda: self.local()
        )
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def get(self, path: str, accept: str = "*/*") -> tuple[int, str, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.server_port}{path}", headers={"Accept": accept}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["content-type"], error.read().decode()

    def values(self) -> dict[tuple, float]:
        code, _, text = self.get("/metrics")
        assert code == 200, text
        return {
            (s.name, *sorted(s.labels.items())): s.value
            for f in text_string_to_metric_families(text)
            for s in f.samples
        }

    def gateway(self, count: int, *pid: str) -> subprocess.Popen:
        """A gateway process that has counted `count` requests and lives on."""
        made = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(count), *pid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PROMETHEUS_MULTIPROC_DIR": str(self.directory)},
        )
        self.gateways.append(made)
        return made


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    made = Exporter(tmp_path)
    made.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    for gateway in made.gateways:
        gateway.kill()
        gateway.communicate()


WHO = (("model", "qwen"), ("tenant", "demo"))
REQUESTS = ("flotilla_requests_total", ("code", "200"), ("endpoint", "chat_completions"), *WHO)
IN_FLIGHT = ("flotilla_requests_in_flight", ("model", "qwen"))


def test_gateways_are_added_up_and_outlive_their_processes(exporter: Exporter) -> None:
    one, two = exporter.gateway(3), exporter.gateway(4)
    for gateway in (one, two):
        assert gateway.stdout.readline() == b"counted\n"
    values = exporter.values()
    assert values[REQUESTS] == 7
    assert values[IN_FLIGHT] == 7
    assert values["flotilla_time_to_first_token_seconds_count", *WHO] == 7
    assert values["flotilla_time_to_first_token_seconds_sum", *WHO] == pytest.approx(0.14)
    assert values["flotilla_time_to_first_token_seconds_bucket", ("le", "0.01"), *WHO] == 0
    assert values["flotilla_time_to_first_token_seconds_bucket", ("le", "0.025"), *WHO] == 7
    two.kill()
    two.wait()
    values = exporter.values()
    assert values[REQUESTS] == 7  # what it answered stays answered
    assert values[IN_FLIGHT] == 3  # what it was answering is over


def test_a_gateway_that_starts_again_under_the_same_process_id_counts_on_and_has_nothing_in_flight(
        exporter: Exporter) -> None:
    pid = str(os.getpid())  # of a process that lives, so that the exporter clears nothing up
    one = exporter.gateway(3, pid)
    assert one.stdout.readline() == b"counted\n"
    one.kill()
    one.wait()
    assert exporter.values()[REQUESTS] == 3
    assert exporter.gateway(4, pid).stdout.readline() == b"counted\n"
    values = exporter.values()
    assert (values[REQUESTS], values[IN_FLIGHT]) == (7, 4)
    assert values["flotilla_time_to_first_token_seconds_count", *WHO] == 7


def test_the_ledgers_samples_are_shown(exporter: Exporter) -> None:
    exporter.samples = lambda: [
        Sample("flotilla_cost_usd_total", ("qwen", "demo", "direct"), 1.5),
        Sample("flotilla_cost_usd_total", ("qwen", "", "idle"), 0.25),
        Sample("flotilla_replicas", ("qwen",), 2),
    ]
    values = exporter.values()
    assert values["flotilla_cost_usd_total", ("bucket", "direct"), *WHO] == 1.5
    assert values["flotilla_cost_usd_total", ("bucket", "idle"), ("model", "qwen"), ("tenant", "")] == 0.25
    assert values["flotilla_replicas", ("model", "qwen")] == 2


@pytest.mark.parametrize(
    ("accept", "parse"),
    [
        ("text/plain", text_string_to_metric_families),
        ("application/openmetrics-text; version=1.0.0", openmetrics),
    ],
)
def test_every_metric_of_the_table_is_told_with_its_help_and_type(
    exporter: Exporter, accept: str, parse: Callable
) -> None:
    assert exporter.gateway(1).stdout.readline() == b"counted\n"
    code, kind, text = exporter.get("/metrics", accept)
    assert (code, kind.split(";")[0]) == (200, accept.split(";")[0])
    families = {f.name: f for f in parse(text)}
    for metric in METRICS:
        if metric.source == "controller":
            continue  # no controller has told anything here
        if metric.source != "gateway" or metric.name in (
            "flotilla_requests_total",
            "flotilla_requests_in_flight",
        ):
            found = families[metric.name.removesuffix("_total")]
            assert found.type == metric.kind
            if metric.source != "gateway":
                assert found.documentation == metric.help


def test_replicas_are_told_in_prometheus_form(exporter: Exporter) -> None:
    exporter.targets = lambda: [Target("10.0.0.1:80", "qwen", "r1"), Target("10.0.0.2:80", "llama", "r2")]
    code, kind, text = exporter.get("/targets")
    assert (code, kind) == (200, "application/json")
    assert json.loads(text) == [
        {"targets": ["10.0.0.1:80"], "labels": {"model": "qwen", "replica": "r1"}},
        {"targets": ["10.0.0.2:80"], "labels": {"model": "llama", "replica": "r2"}},
    ]


def test_while_the_ledger_is_away_there_is_a_gap_where_its_truth_would_be_and_no_zero(exporter: Exporter) -> None:
    def away() -> Iterator[Sample]:
        yield Sample("flotilla_replicas", ("qwen",), 2)
        raise LedgerError("the database is away")

    assert exporter.gateway(3).stdout.readline() == b"counted\n"
    exporter.local = lambda: [Sample("flotilla_ledger_spool_bytes", ("gateway",), 4096)]
    exporter.samples = away
    values = exporter.values()
    assert values["flotilla_ledger_up",] == 0
    assert values[REQUESTS] == 3, "gateways are seen on"
    assert values["flotilla_ledger_spool_bytes", ("process", "gateway")] == 4096
    told = exporter.get("/metrics")[2]
    assert not [m.name for m in METRICS if m.source == "ledger" and m.name in told]
    exporter.samples = lambda: [Sample("flotilla_replicas", ("qwen",), 2)]
    values = exporter.values()
    assert (values["flotilla_ledger_up",], values["flotilla_replicas", ("model", "qwen")]) == (1, 2)


@pytest.mark.parametrize("error", [OSError, LedgerError])
def test_no_list_of_replicas_is_told_that_is_not_known(exporter: Exporter, error: type[Exception]) -> None:
    def away() -> Iterator[Target]:
        yield from ()
        raise error("the database is away")

    exporter.targets = away
    assert exporter.get("/targets")[0] == 503  # Prometheus goes on with the one it has


@pytest.mark.parametrize("path", ["/metrics", "/targets"])
def test_no_half_truth_when_something_else_is_wrong(exporter: Exporter, path: str) -> None:
    def away() -> Iterator:
        yield from ()
        raise OSError("the disk is gone")

    exporter.samples = exporter.targets = away
    code, _, text = exporter.get(path)
    assert code == 503
    assert "the disk is gone" in text
    exporter.samples = exporter.targets = lambda: ()
    assert exporter.get(path)[0] == 200  # and it recovers


def test_a_sample_that_is_not_in_the_table_is_refused(exporter: Exporter) -> None:
    exporter.samples = lambda: [Sample("flotilla_invented_total", ("qwen",), 1)]
    assert exporter.get("/metrics")[0] == 503


def test_other_paths(exporter: Exporter) -> None:
    assert exporter.get("/healthz")[0] == 200
    assert exporter.get("/metrics?x=1")[0] == 200
    code, _, text = exporter.get("/nothing")
    assert (code, "/metrics" in text) == (404, True)


def test_who_neither_asks_nor_reads_is_cut_off_and_holds_up_no_one(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.telemetry.exporter._SLOW_S", 0.3)
    many = Exporter(tmp_path, samples=lambda: [
        Sample("flotilla_tokens_total", (f"model-{n}" + 4000 * "x", "demo", "prompt"), n) for n in range(3000)])
    others = set(threading.enumerate())
    many.start()
    address = ("127.0.0.1", many.server.server_port)
    silent = [socket.create_connection(address) for _ in range(20)]
    deaf = [socket.create_connection(address) for _ in range(5)]
    try:
        for one in deaf:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert many.get("/healthz")[0] == 200
        for one in silent:
            one.settimeout(20)
            assert one.recv(1) == b""
        deadline = time.monotonic() + 60
        while threads := [t for t in set(threading.enumerate()) - others if "process_request_thread" in t.name]:
            assert time.monotonic() < deadline, threads
            time.sleep(0.02)
    finally:
        for one in (*silent, *deaf):
            one.close()
        many.server.shutdown()
        many.server.server_close()


def test_a_port_that_is_taken_is_an_error(exporter: Exporter, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        serve("127.0.0.1", exporter.server.server_port, str(tmp_path), lambda: (), lambda: ())
