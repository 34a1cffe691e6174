"""serveConfigV2 on a real Ray: what `flotilla render serve-config` prints runs, and a change restarts what it must.

Minutes long, so behind a command of its own:
    FLOTILLA_RAY_CLUSTER=1 ./tests/run -- tests/kubernetes/test_kubernetes_serve_config.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgres_server
import pytest
import yaml
from ray_cluster import OPEN, RayCluster, eventually, free_port

from serving.cli.render import cluster_fleet, config
from serving.kubernetes.clusterfleet import FLEET_FILE, MOUNTED
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.plan import Changes, fleet

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.environ.get("FLOTILLA_RAY_CLUSTER"), reason="FLOTILLA_RAY_CLUSTER=1 runs it (minutes)"),
]
REPLICA_PORTS = range(28_500, 28_600)


def fleet_text(port: int, metrics: int, tenants: tuple[str, ...] = ("demo",)) -> str:
    laptop = yaml.safe_load((ROOT / "deployments/fleets/laptop.yaml").read_text())
    qwen = laptop["models"]["qwen"] | {"slo": {"ttft_ms": 30_000, "tpot_ms": 2_000}}
    return yaml.safe_dump({
        "name": "clustered", "prices": str(ROOT / "deployments/prices/api.json"), "models": {"qwen": qwen},
        "accelerators": laptop["accelerators"], "tenants": {name: {} for name in tenants},
        "gateway": {"port": port}, "metrics": {"port": metrics},
    })


class Mounted:
    """A pod's mount of the fleet's ConfigMap, and the config that goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def change(self, text: str) -> dict[str, Any]:
        """A new fleet file: the files as mounted, and what Ray Serve is told."""
        original = self.folder.parent / "fleet.yaml"
        original.write_text(text)
        found = fleet(original, Changes({}))
        cluster = cluster_fleet(original, found)
        for name, content in cluster.files.items():
            (self.folder / name).write_text(content)
        told = yaml.safe_load(config(original, cluster, found).replace(MOUNTED, str(self.folder / FLEET_FILE)))
        for app in told["applications"]:
            if app["name"] == "gateway":
                app["args"]["metrics_dir"] = str(self.folder.parent / "counters")
        return told


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres_server.running() as server:
        yield {
            "FLOTILLA_DATABASE_URL": server.url(server.database()), "FLOTILLA_KEY_PEPPER": "pepper",
            "FLOTILLA_REPLICA_SECRET": "only the gateway knows", "FLOTILLA_REPLICA_HOST": "127.0.0.1",
            "FLOTILLA_REPLICA_PORTS": f"{REPLICA_PORTS[0]}-{REPLICA_PORTS[-1]}",
        }


def test_a_rendered_fleet_runs_answers_counts_and_changes(tmp_path: Path, environment: dict[str, str]) -> None:
    port, metrics, beside = free_port(), free_port(), free_port()
    (tmp_path / "counters").mkdir()
    mounted = Mounted(tmp_path / "etc")
    told = mounted.change(fleet_text(port, metrics))
    cluster = RayCluster(tmp_path, environment, ("laptop-core",))
    children: list[subprocess.Popen[bytes]] = []
    try:
        own = cluster.environment | {"FLOTILLA_FLEET": str(mounted.folder / FLEET_FILE), "PYTHONPATH": str(ROOT)}
        cluster.put(told)
        cluster.await_running()
        eventually(lambda: _ready(port), 60, cluster.log)
        for module, *more in (("serving.exporter", "--fleet", str(mounted.folder / FLEET_FILE)),
                              ("serving.sidecar", "--host", "127.0.0.1", "--port", str(beside), "--counters",
                               str(tmp_path / "counters"))):
            child = subprocess.Popen([sys.executable, "-m", module, *more], env=own, stdout=subprocess.PIPE)
            children.append(child)
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        tested = subprocess.run([sys.executable, "-m", "serving.selftest", "--api", f"http://127.0.0.1:{port}",
                                 "--metrics", f"http://127.0.0.1:{metrics}/metrics"],
                                env=own, capture_output=True, text=True, timeout=120)
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert "qwen: 4 tokens" in tested.stdout and "the books add up" in tested.stdout

        with OPEN(f"http://127.0.0.1:{beside}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        assert any(line.startswith("flotilla_requests_total{") for line in lines)
        engine = [line for line in lines if line.startswith("vllm:num_requests_running{")]
        assert engine and 'model="qwen"' in engine[0] and "replica=" in engine[0]
        ledger = Ledger.open(environment["FLOTILLA_DATABASE_URL"])
        (replica,) = [s.record for s in sums.totals(ledger, 0.0).replicas]
        assert int(replica.endpoint.rpartition(":")[2]) in REPLICA_PORTS

        # a new tenant restarts the gateway, and the engine goes on
        before = _actors(cluster)
        cluster.put(mounted.change(fleet_text(port, metrics, ("demo", "second"))))
        eventually(lambda: _actors(cluster)["gateway"] != before["gateway"], 90, cluster.log)
        cluster.await_running()
        eventually(lambda: _ready(port), 60, cluster.log)
        assert _actors(cluster)["model-qwen"] == before["model-qwen"]
    finally:
        for child in children:
            child.terminate()
        cluster.stop()
        for child in children:
            child.wait(20)


def _actors(cluster: RayCluster) -> dict[str, list[str]]:
    return {name: sorted(r["actor_id"] for d in app["deployments"].values() for r in d["replicas"] if r["actor_id"])
            for name, app in cluster.applications().items()}


def _ready(port: int) -> bool:
    try:
        with OPEN(urllib.request.Request(f"http://127.0.0.1:{port}/readyz"), timeout=5) as answer:
            return bool(json.load(answer)["ready"])
    except OSError:
        return False
