"""The exporter as the supervisor starts it: what it serves, and the overhead that it leaves in the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from otlp_collector import Collector
from prometheus_client.parser import text_string_to_metric_families

from serving import launch
from serving.fleet.money import bill
from serving.fleet.records import RequestRecord
from serving.ledger import sums
from serving.ledger.durable import own_spool
from serving.ledger.store import Ledger
from serving.plan import Changes, Plan

ROOT = Path(__file__).parents[2]
FLEET = {
    "name": "sample", "prices": "prices.json",
    "accelerators": {"core": {"kind": "cpu", "memory_gib": 2, "price_usd_per_hour": 0.04}},
    "models": {"qwen": {"source": "org/any", "architecture": "LlamaForCausalLM", "accelerator": "core",
                        "slo": {"ttft_ms": 1500, "tpot_ms": 80}}},
    "tenants": {"demo": {}},
    "costs": {"overhead": {"head_usd_per_hour": 3600, "gateway_usd_per_hour": 1}},
}


LEFT = RequestRecord("flo-1", "", "demo", "key_1", "qwen", "chat_completions", 200, "finished", 1.0, 0.5, False)


GATEWAY = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.meter import PrometheusMeter
PrometheusMeter({{}}, gen_ai=True).answered(RequestRecord(
    "flo-2", "", "demo", "key_1", "qwen", "chat_completions", 200, "finished", 0.0, 1.5, False), None)
"""


@dataclass
class Exporter:
    """The process and where it is."""

    process: subprocess.Popen[bytes]
    url: str
    ledger: Path

    def metrics(self) -> dict[str, list[float]]:
        """Values of one scrape by name."""
        found: dict[str, list[float]] = {}
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url, timeout=10) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append(sample.value)
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def exporter(tmp_path: Path, collector: Collector) -> Iterator[Exporter]:
    pushed = {"metrics": {"gen_ai": True, "push": {"endpoint": collector.endpoint, "every_s": 600}}}
    (tmp_path / "fleet.yaml").write_text(json.dumps(FLEET | pushed))  # JSON is YAML
    (tmp_path / "prices.json").write_text((ROOT / "deployments" / "prices" / "api.json").read_text())
    (tmp_path / "metrics").mkdir()
    plan = Plan("test", str(tmp_path), str(tmp_path), str(tmp_path / "fleet.yaml"), "sample", "", "",
                Changes({}, metrics_port=launch.free_port()))
    left = own_spool(tmp_path / "spool", "gateway", 1 << 20)
    left.append(LEFT)
    left.close()  # as by the death of its process
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLOTILLA_")}
    process = subprocess.Popen([sys.executable, "-m", "serving.exporter"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, cwd=ROOT, env=clean | {"FLOTILLA_STATE_DIR": str(tmp_path)})
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(plan.to_json().encode())
    process.stdin.close()
    try:
        assert process.stdout.readline() == b"ready\n"
        yield Exporter(process, f"http://127.0.0.1:{plan.changes.metrics_port}/metrics", tmp_path / "ledger.db")
    finally:
        process.kill()
        process.wait(10)


def test_what_a_dead_process_left_on_disk_comes_to_the_ledger(exporter: Exporter) -> None:
    ledger = Ledger.open(exporter.ledger)
    for _ in range(100):
        if (found := sums.request(ledger, LEFT.request_id)) is not None:
            break
        threading.Event().wait(0.1)
    assert found is not None and found.request is not None
    assert (found.request.request_id, found.request.tenant) == (LEFT.request_id, LEFT.tenant)


def test_it_serves_and_leaves_the_head_nodes_time_in_the_ledger_to_its_end(exporter: Exporter) -> None:
    found = exporter.metrics()
    assert found["flotilla_ledger_up"] == [1]
    exporter.process.send_signal(signal.SIGTERM)
    assert exporter.process.wait(20) == 0
    ledger = Ledger.open(exporter.ledger)
    (state,) = sums.totals(ledger, 0.0).sources
    head = state.record
    assert (head.role, head.model, head.ended) == ("head", "", True)
    assert head.overhead_nanousd == bill(3600 * 10**9, head.elapsed_ns) > 0
    books = sums.reconcile(ledger)
    assert (books.residual_nanousd, books.bill_nanousd) == (0, head.overhead_nanousd)
    assert not list((exporter.ledger.parent / "spool").glob("exporter-*")), "an empty spool goes with its process"


def test_what_gateways_counted_reaches_the_collector_at_the_latest_at_its_end(exporter: Exporter, collector: Collector
                                                                              ) -> None:
    subprocess.run([sys.executable, "-c", GATEWAY], check=True,
                   env={"PROMETHEUS_MULTIPROC_DIR": str(exporter.ledger.parent / "metrics")})
    assert not collector.points
    exporter.process.send_signal(signal.SIGTERM)
    assert exporter.process.wait(20) == 0
    point, = collector.points
    assert (point.name, point.count, point.sum) == ("gen_ai.server.request.duration", 1, 1.5)
    assert point.resource["service.namespace"] == "sample"
