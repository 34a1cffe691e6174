"""Prices follow nodes: from a label at the API server to the books of a replica, over gaps and refusals."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_samples as samples
import pytest
from fake_kubernetes import FakeKubernetes
from typer.testing import CliRunner

from serving.cli.main import app
from serving.engines import nodeprices as following
from serving.fleet.account import Account
from serving.fleet.catalogue import Fleet
from serving.fleet.money import NS_PER_HOUR, PriceLine
from serving.kubernetes import kinds, nodelabels, nodeprices
from serving.kubernetes.cluster import Cluster
from serving.kubernetes.watching import watch
from serving.plan import Changes, fleet
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # how `kept` ends one
ROOT = Path(__file__).resolve().parents[2]
SPOT_MIX = ROOT / "deployments/fleets/spot-mix.yaml"
AWS = {"node.kubernetes.io/instance-type": "p5.48xlarge", "topology.kubernetes.io/region": "us-east-1",
       "k8s.io/cloud-provider-aws": "x"}
ON_DEMAND, SPOT = AWS | {"karpenter.sh/capacity-type": "on-demand"}, AWS | {"karpenter.sh/capacity-type": "spot"}


@pytest.fixture(scope="module")
def mix() -> Fleet:
    return fleet(SPOT_MIX, Changes({}))


def label(server: FakeKubernetes, name: str, labels: dict[str, str]) -> None:
    server.objects.patch("v1", "nodes", "", name, {"metadata": {"labels": labels}}, "merge")


def until(said: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not said() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said()


@pytest.fixture
def kept(server: FakeKubernetes, cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The file that a sidecar on node a keeps."""
    samples.fill(server, [samples.node("a", 8, ON_DEMAND), samples.node("b", 8, SPOT)])
    file, over = tmp_path / "labels.json", threading.Event()

    def pause(seconds: float) -> None:
        if over.wait(min(seconds, 0.05)):
            raise SystemExit  # ends the thread

    nodelabels.Keeper(lambda: cluster, "a", file, pause).start()
    until(file.exists)
    yield file
    over.set()


def test_the_file_follows_its_node_alone(kept: Path, server: FakeKubernetes) -> None:
    assert json.loads(kept.read_text()) == ON_DEMAND
    label(server, "b", {"other": "1"})
    label(server, "a", {"karpenter.sh/capacity-type": "spot"})
    until(lambda: json.loads(kept.read_text()) == SPOT)
    assert abs(kept.stat().st_mtime - time.time()) < 10
    server.objects.delete("v1", "nodes", "", "a")
    samples.fill(server, [samples.node("c")])
    until(lambda: any(a.startswith("GET /api/v1/nodes") for a in server.asked))
    assert json.loads(kept.read_text()) == SPOT, "a node that goes leaves them as they were"


def test_after_a_gap_the_file_is_what_the_node_is(kept: Path, server: FakeKubernetes) -> None:
    until(lambda: server.watches == 1)
    with server.objects.lock:  # 410 in mid-watch: listed again, and the difference counts
        label(server, "a", {"karpenter.sh/capacity-type": "spot"})
        server.objects.forget()
    until(lambda: json.loads(kept.read_text()) == SPOT)


def test_what_did_not_change_leaves_the_moment_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    assert nodelabels.write(file, ON_DEMAND, 1000.0) and not nodelabels.write(file, ON_DEMAND, 2000.0)
    assert file.stat().st_mtime == 1000.0
    assert nodelabels.write(file, SPOT, 3000.5) and file.stat().st_mtime == 3000.5
    assert list(tmp_path.iterdir()) == [file], "no drafts are left"


async def test_a_replica_pays_the_new_price_from_its_moment_on(tmp_path: Path, mix: Fleet) -> None:
    file = tmp_path / "labels.json"
    nodelabels.write(file, ON_DEMAND, 0.0)
    settings = Settings.read({"FLOTILLA_NODE_LABELS": f"@{file}"})
    line = mix.price_line("qwen", settings.labels())
    account, told = Account(line, 0, 1_800_000_000.0), asyncio.Event()

    def reprice(at_s: float, new: PriceLine) -> None:
        account.reprice(at_s, new)
        told.set()

    task = asyncio.create_task(following.follow(settings, lambda labels: mix.price_line("qwen", labels), line, reprice,
                                                every_s=0.01))
    await asyncio.sleep(0.05)
    assert not told.is_set(), "the same labels are no news"
    nodelabels.write(file, SPOT, 1_800_000_060.0)
    await asyncio.wait_for(told.wait(), 5)
    account.advance(100 * 10**9, "idle")
    on_demand, spot = 2 * 6.88e9, 2 * 2.12e9  # two devices
    assert account.total.idle_nanousd == int((60 * on_demand + 40 * spot) * 10**9 // NS_PER_HOUR)
    assert [(i.starts_at, i.price_nanousd_per_hour) for i in account.changes()] == [
        (1_800_000_000.0, on_demand), (1_800_000_060.0, spot)]
    told.clear()
    nodelabels.write(file, {"a": "b"}, 1_800_000_200.0)
    await asyncio.sleep(0.05)
    assert not told.is_set() and not task.done(), "labels without a price change nothing"
    file.unlink()
    await asyncio.sleep(0.05)
    nodelabels.write(file, ON_DEMAND, 1_800_000_300.0)
    await asyncio.wait_for(told.wait(), 5)
    task.cancel()


async def test_without_a_file_nothing_is_followed() -> None:
    await asyncio.wait_for(following.follow(Settings.read({"FLOTILLA_NODE_LABELS": "{}"}), lambda labels: None,
                                            PriceLine.fixed(1), lambda at, line: None), 5)


def test_a_line_goes_on_as_another() -> None:
    before, other = PriceLine(((0.0, 5), (100.0, 7), (200.0, 9))), PriceLine(((0.0, 1), (180.0, 2)))
    assert before.then(150.0, other).changes == ((0.0, 5), (100.0, 7), (150.0, 1), (180.0, 2))
    assert before.then(150.0, PriceLine.fixed(7)).changes == ((0.0, 5), (100.0, 7)), "the same price is no change"
    assert before.then(-1.0, PriceLine.fixed(3)).changes == ((-1.0, 3),)


def test_nodes_appear_change_and_go(server: FakeKubernetes, cluster: Cluster, mix: Fleet) -> None:
    samples.fill(server, [samples.node("a", 8, ON_DEMAND)])
    moments = itertools.count(100.0, 10.0)
    events = nodeprices.events(watch(cluster, kinds.NODES, for_s=1), mix, lambda: next(moments))
    first = next(events)
    assert (first.at, first.what, first.node.name, first.node.capacity) == (100.0, "appears", "a", "on_demand")
    assert first.node.usd_per_hour == {"h100": 6.88} and first.node.gpus == 8
    label(server, "a", {"unrelated": "1"})
    label(server, "a", {"karpenter.sh/capacity-type": "spot"})
    second = next(events)
    assert (second.what, second.node.usd_per_hour) == ("changes", {"h100": 2.12})
    server.objects.delete("v1", "nodes", "", "a")  # while no one looks: found by the list after 410
    samples.fill(server, [samples.node("b", 8, AWS)])
    server.objects.forget()
    gone, come = next(events), next(events)
    assert (gone.what, gone.node.usd_per_hour) == ("goes", {"h100": 2.12})
    assert come.what == "appears" and "do not say whether it is spot" in come.node.unknown["h100"]


def test_for_people_and_programs(server: FakeKubernetes, kubeconfig: Path) -> None:
    samples.fill(server, [samples.node("a", 8, SPOT), samples.node("cpu", 0)])
    run = CliRunner().invoke
    done = run(app, ["prices", "nodes", str(SPOT_MIX)], env={"COLUMNS": "100"})
    assert done.exit_code == 0 and "h100: 2.12" in done.stdout, done.output
    samples.fill(server, [samples.node("b", 8)])
    done = run(app, ["prices", "nodes", str(SPOT_MIX), "--json"])
    found = {n["name"]: n for n in json.loads(done.stdout)}
    assert done.exit_code == 1, "a node with GPUs has no price"
    assert found["a"]["usd_per_hour"] == {"h100": 2.12} and "h100" in found["b"]["unknown"]
    done = run(app, ["prices", "nodes", str(ROOT / "deployments/fleets/laptop.yaml")])
    assert "no profile of laptop has from_node_labels" in str(done.exception)


def test_watching_tells_a_line_per_event(server: FakeKubernetes, kubeconfig: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    samples.fill(server, [samples.node("a", 8, SPOT)])
    told = []

    def stop(*parts: object, **options: object) -> None:
        told.append(json.loads(str(parts[0])))
        if len(told) == 2:
            raise KeyboardInterrupt
        threading.Thread(target=lambda: samples.fill(server, [samples.node("b", 8, ON_DEMAND)])).start()

    monkeypatch.setattr("serving.cli.prices.print", stop, raising=False)
    done = CliRunner().invoke(app, ["prices", "nodes", str(SPOT_MIX), "--watch", "--json"])
    assert done.exit_code == 0
    assert [(t["what"], t["node"]["name"]) for t in told] == [("appears", "a"), ("appears", "b")]
