"""An upgrade changes what it must and nothing else: which objects, which fields of them, and what restarts by that.

What restarts follows from the rules of those who act on the objects: Ray Serve restarts an application whose arguments
changed; KubeRay makes a new cluster when rayClusterConfig differs by more than its groups' numbers of pods and groups
added at the end (1.6 and 1.7, `GenerateHashWithoutReplicasAndWorkersToDelete`); a Deployment rolls when its template
changed; a Job of another name runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_fleets import loaded
from chart_rig import CHART, ROOT, Doc, one, rendered_text

from serving.cli.render import as_yaml, fleet_values
from serving.kubernetes import upgrades
from serving.kubernetes.values import merged

PRODUCTION = yaml.safe_load((ROOT / "deployments" / "fleets" / "h200-production.yaml").read_text())
PLATFORM = yaml.safe_load((CHART / "ci" / "overlays" / "h200-production.yaml").read_text())
EXPORTER = "Deployment/flotilla-exporter"
Change = Callable[[dict[str, Any], dict[str, Any]], object]
PRICES = {"prices": str(ROOT / "deployments" / "prices" / "api.json"),
          "accelerator_prices": str(ROOT / "deployments" / "prices" / "accelerators.csv")}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> list[Doc]:
    return installed(tmp_path_factory.mktemp("before"), lambda fleet, platform: None)


def installed(folder: Path, change: Change) -> list[Doc]:
    """The production fleet's objects after a change of the fleet file or of the platform's values."""
    fleet, platform = copy.deepcopy(PRODUCTION) | PRICES, copy.deepcopy(PLATFORM)
    change(fleet, platform)
    path, found = loaded(fleet, folder)
    return rendered_text(as_yaml(merged(fleet_values(path, found), platform)))


def by_name(docs: list[Doc]) -> dict[str, Doc]:
    return {f"{d['kind']}/{d['metadata']['name']}": d for d in docs}


def changed_fields(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Where two values differ. Texts that are YAML are compared as what they say."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old:
        old, new = yaml.safe_load(old), yaml.safe_load(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from changed_fields(old.get(key), new.get(key), f"{at}.{key}".strip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one_, other) in enumerate(zip(old, new, strict=True)):
            name = one_.get("name", one_.get("groupName", index)) if isinstance(one_, dict) else index
            yield from changed_fields(one_, other, f"{at}[{name}]")
    elif old != new:
        yield at


def changes(before: list[Doc], after: list[Doc]) -> set[str]:
    """`Kind/name` of objects that came or went, with `+` or `-`, and `Kind/name field` of those that differ."""
    old, new = by_name(before), by_name(after)
    return ({f"+{name}" for name in new.keys() - old.keys()} | {f"-{name}" for name in old.keys() - new.keys()}
            | {f"{name} {field}" for name in old.keys() & new.keys() for field in changed_fields(old[name], new[name])})


def restarts(before: list[Doc], after: list[Doc]) -> set[str]:
    """Applications, `cluster`, Deployments and Jobs that begin anew."""
    ray, later = (one(docs, "RayService")["spec"] for docs in (before, after))
    apps, new_apps = ({a["name"]: a["args"] for a in yaml.safe_load(s["serveConfigV2"])["applications"]}
                      for s in (ray, later))
    found = {name for name, args in new_apps.items() if apps.get(name) != args}
    groups = len(ray["rayClusterConfig"]["workerGroupSpecs"])
    if _hashed(ray["rayClusterConfig"], groups) != _hashed(later["rayClusterConfig"], groups):
        found.add("cluster")
    old, new = by_name(before), by_name(after)
    for name, doc in new.items():
        if doc["kind"] == "Deployment" and doc["spec"]["template"] != old[name]["spec"]["template"]:
            found.add(name)
        if doc["kind"] == "Job" and name not in old:
            found.add("prefetch")
    return found


def _hashed(config: Doc, groups: int) -> str:
    config = copy.deepcopy(config)
    config["workerGroupSpecs"] = config["workerGroupSpecs"][:groups]
    for group in config["workerGroupSpecs"]:
        for key in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(key, None)
    return json.dumps(config, sort_keys=True)


def test_nothing_changes_without_a_change(before: list[Doc], tmp_path: Path) -> None:
    assert changes(before, installed(tmp_path, lambda fleet, platform: None)) == set()


def test_one_models_replicas_change_its_numbers_and_restart_no_engine(before: list[Doc], tmp_path: Path) -> None:
    after = installed(tmp_path, lambda fleet, _: fleet["models"]["qwen-32b"].update(replicas={"min": 3, "max": 12}))
    scaling = "RayService/flotilla spec.serveConfigV2.applications[model-qwen-32b].deployments[ModelServer:qwen-32b]"
    assert changes(before, after) == {
        "ConfigMap/flotilla-fleet data.fleet.yaml.models.qwen-32b.replicas.max",
        "ConfigMap/flotilla-fleet data.fleet.yaml.models.qwen-32b.replicas.min",
        f"{scaling}.autoscaling_config.max_replicas", f"{scaling}.autoscaling_config.min_replicas",
        "RayService/flotilla spec.rayClusterConfig.workerGroupSpecs[h200].maxReplicas",
        "Deployment/flotilla-exporter spec.template.metadata.annotations.checksum/fleet",
    }
    assert restarts(before, after) == {EXPORTER}


def test_whether_a_model_may_sleep_is_told_to_gateways(before: list[Doc], tmp_path: Path) -> None:
    after = installed(tmp_path, lambda fleet, _: fleet["models"]["qwen-32b"].update(replicas={"min": 0, "max": 4}))
    assert restarts(before, after) == {"gateway", EXPORTER}


@pytest.mark.parametrize(("change", "what"), [
    (lambda f, p: f["tenants"].update(third={"weight": 2}), {"gateway", EXPORTER}),
    (lambda f, p: f["models"]["qwen-32b"].update(slo={"ttft_ms": 900, "tpot_ms": 30}), {"gateway", EXPORTER}),
    (lambda f, p: f["models"]["qwen-32b"]["engine"].update(max_num_seqs=128), {"model-qwen-32b", "gateway", EXPORTER}),
    (lambda f, p: f["models"]["qwen-32b"].update(revision="abc"),
     {"model-qwen-32b", "gateway", EXPORTER, "prefetch"}),
    (lambda f, p: f["models"].update(second=f["models"]["qwen-32b"] | {"source": "Qwen/Qwen3-8B", "fallback": []}),
     {"model-second", "gateway", EXPORTER, "prefetch"}),
    (lambda f, p: f["gateway"].update(replicas=5), {EXPORTER}),
    (lambda f, p: p["image"].update(tag="0.1.1-gpu"), {"cluster", EXPORTER, "prefetch"}),
    (lambda f, p: p.update(commonLabels={"team": "x"}), {"cluster", EXPORTER, "prefetch"}),
    (lambda f, p: p["image"].update(pullSecrets=["another"]), {"cluster", EXPORTER, "prefetch"}),
    (lambda f, p: p["workerGroups"]["h200"].update(annotations={"a": "b"}), {"cluster"}),
    (lambda f, p: p.update(ray={"env": {"RAY_x": "1"}}), {"cluster"}),
    (lambda f, p: p["httpRoute"].update(hostnames=["other.example.com"]), set()),
], ids=["tenant", "slo", "engine", "revision", "new-model", "gateways", "image", "labels", "pull-secret", "pods",
        "environment", "route"])
def test_what_restarts(before: list[Doc], tmp_path: Path, change: Change, what: set[str]) -> None:
    after = installed(tmp_path, change)
    assert restarts(before, after) == what
    assert not upgrades.plan(before, after).refused, "and nothing of it is what Kubernetes lets no one change"
