"""Every field of KubeRay's RayService can be reached from values: what its definition (CRD) knows is made up, given as
raw overrides, and found in what the chart renders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart_rig import CHART, CRDS, Doc, one, rendered, valid

LAPTOP = CHART / "ci" / "laptop-kind-values.yaml"
TYPES = {"string": "x", "integer": 7, "number": 7, "boolean": True}
#: Parts with an override of their own; and where KubeRay's rules, not the chart, say what stands there.
PARTS = {"rayClusterConfig", "headGroupSpec", "workerGroupSpecs", "template", "containers", "serveConfigV2",
         "upgradeStrategy"}


@pytest.fixture(scope="module")
def known() -> Doc:
    """The definition's schema of a RayService's spec."""
    crd = yaml.load((CRDS / "ray.io_rayservices.yaml").read_text(), yaml.CSafeLoader)
    return next(v for v in crd["spec"]["versions"] if v["storage"])["schema"]["openAPIV3Schema"]["properties"]["spec"]


def made_up(schema: Doc, falsy: bool = False) -> Any:
    """A value with every field that the schema knows but for the parts; `falsy`: with what a template takes for
    nothing."""
    if "enum" in schema:
        return schema["enum"][-1]
    if schema.get("x-kubernetes-int-or-string"):
        return 0 if falsy else 7
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {name: made_up(inner, falsy) for name, inner in schema["properties"].items() if name not in PARTS}
        case "object":
            free = schema.get("additionalProperties")
            return {"key": made_up(free, falsy)} if isinstance(free, dict) else {"key": "x"}
        case "array":
            return [made_up(schema["items"], falsy)]
        case kind:
            return type(TYPES[kind])() if falsy and kind == "boolean" else TYPES[kind]


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    else:
        yield at, value


def lost(wanted: Any, found: Any) -> list[str]:
    """Fields that did not arrive."""
    missing = []
    for path, value in leaves(wanted):
        at = found
        for key in path:
            at = at.get(key) if isinstance(at, dict) else None
        if at != value:
            missing.append(".".join(path))
    return missing


@pytest.mark.parametrize("falsy", [False, True], ids=["set", "off"])
def test_overrides_reach_every_field(known: Doc, falsy: bool) -> None:
    cluster = known["properties"]["rayClusterConfig"]
    head, worker = (cluster["properties"][name] for name in ("headGroupSpec", "workerGroupSpecs"))
    pod = head["properties"]["template"]["properties"]["spec"]
    container = pod["properties"]["containers"]["items"]
    own = {"container": made_up(container, falsy), "podSpec": made_up(pod, falsy)}
    whole, config = made_up(known, falsy), made_up(cluster, falsy)
    group = made_up(worker["items"], falsy)
    values = {"rayService": {"spec": whole, "rayClusterConfig": config},
              "head": own | {"group": made_up(head, falsy)}, "gateways": own | {"group": group},
              "workerGroups": {"laptop-core": own | {"group": group}}}
    assert len(list(leaves(values))) > 600, "the definition was read"
    ray = one(rendered([LAPTOP], values), "RayService")
    valid(ray, ())
    assert not lost(whole, ray["spec"]) and not lost(config, ray["spec"]["rayClusterConfig"])
    config = ray["spec"]["rayClusterConfig"]
    by_part = {"head": config["headGroupSpec"], "gateways": config["workerGroupSpecs"][0],
               "laptop-core": config["workerGroupSpecs"][1]}
    for part, found in by_part.items():
        asked = values["workerGroups"][part] if part == "laptop-core" else values[part]
        spec = found["template"]["spec"]
        assert not lost(asked["group"], found), part
        assert not lost(asked["podSpec"], spec), part
        assert not lost(asked["container"], spec["containers"][0]), part


def test_what_is_left_out_above_has_ways_of_its_own() -> None:
    spec = one(rendered([LAPTOP], {"rayService": {"spec": {
        "upgradeStrategy": {"type": "NewCluster"}, "serveConfigV2": "applications: []\n"}}}), "RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"} and spec["serveConfigV2"] == "applications: []\n"
