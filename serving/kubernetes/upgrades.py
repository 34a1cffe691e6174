"""What an upgrade of a release would change, from what Helm has installed to what it would install: objects, fields,
and what that does to what runs. Pure.

The effects are those of KubeRay and Ray Serve as the chart uses them: a pod template makes a new cluster or nothing, by
the upgrade strategy; numbers of pods change in place; an application restarts when the digest in its arguments changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from serving.kubernetes import frozen, rendered

Doc = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = ("replicas", "minReplicas", "maxReplicas")  # that KubeRay changes in place
_STRATEGIES = {
    "NewCluster": "pods change: a second cluster comes up beside the first, which goes once the new one serves; needs "
                  "all GPUs twice",
    "NewClusterWithIncrementalUpgrade": "pods change: a second cluster grows step by step as the first shrinks",
    "None": "pods would change, and with upgrade.strategy None they stay as they are until the RayService is made anew "
            "(kubectl delete rayservice, then upgrade again): streams are cut then",
}


@dataclass(frozen=True)
class ObjectChange:
    """One object. `lines`: its difference, path by path; values of Secrets are left out."""

    kind: str
    name: str
    what: Literal["new", "changed", "gone"]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All of it. `effects`: what happens to what runs, in sentences; `refused`: what the cluster will not take, with
    what to do about it."""

    objects: tuple[ObjectChange, ...]
    effects: tuple[str, ...]
    refused: tuple[str, ...] = ()


def plan(before: list[Doc], after: list[Doc]) -> Plan:
    """From installed objects to wanted ones."""
    old, new = ({rendered.key(d): d for d in docs} for docs in (before, after))
    objects = [ObjectChange(*key, "gone") for key in old if key not in new]
    for key, doc in new.items():
        if key not in old:
            objects.append(ObjectChange(*key, "new"))
        elif old[key] != doc:
            objects.append(ObjectChange(*key, "changed", tuple(difference(old[key], doc))))
    refused = (_refusal(doc, paths) for key, doc in new.items()
               if key in old and (paths := frozen.touched(old[key], doc)))
    return Plan(tuple(objects), tuple(_effects(old, new)), tuple(refused))


def difference(before: Doc, after: Doc) -> Iterator[str]:
    """Lines `path: old → new`; texts of several lines as the lines that differ."""
    secret = before["kind"] == "Secret"
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for path in sorted(old.keys() | new.keys()):
        if (a := old.get(path)) == (b := new.get(path)):
            continue
        if secret and path.startswith(("data.", "stringData.")):
            yield f"{path}: another value"
        elif isinstance(a, str) and isinstance(b, str) and "\n" in a + b:
            yield f"{path}:"
            yield from (f"  {line}" for line in list(difflib.unified_diff(
                a.splitlines(), b.splitlines(), lineterm="", n=0))[2:] if not line.startswith("@@"))
        else:
            yield f"{path}: {_shown(a)} → {_shown(b)}"


def _refusal(doc: Doc, paths: list[str]) -> str:
    kind, name = rendered.key(doc)
    fix = {"StatefulSet": f"`kubectl delete statefulset {name} --cascade=orphan` before leaves pod and volume alone",
           "PersistentVolumeClaim": "keep it as it was, or name another by existingClaim"}.get(
               kind, f"give it another name, or `kubectl delete {kind.lower()} {name}` before")
    if kind == "Job" and "-loadtest-" in name:
        fix = "a run that was made stays what it is: give the next one another loadtest.name"
    return f"{kind} {name}: {', '.join(paths)} cannot change; {fix}"


def _effects(old: Mapping[tuple[str, str], Doc], new: Mapping[tuple[str, str], Doc]) -> Iterator[str]:
    before, after = _service(old), _service(new)
    if before is None or after is None:
        return
    (rest, groups_before), (wanted, groups_after) = _templates(before), _templates(after)
    if rest != wanted or groups_before != groups_after[:len(groups_before)]:
        yield _STRATEGIES[after["spec"]["upgradeStrategy"]["type"]]
    groups, others = rendered.groups(before), rendered.groups(after)
    for name, group in others.items():
        was = groups.get(name)
        if was is None:
            yield f"the group {name} comes, in the cluster that there is"
        if was is None or name == "head":
            continue
        bounds = [(g.get("minReplicas", 0), g.get("maxReplicas", 0)) for g in (was, group)]
        if bounds[0] != bounds[1]:
            yield (f"the group {name} has {bounds[1][0]} to {bounds[1][1]} pods instead of {bounds[0][0]} to "
                   f"{bounds[0][1]}; no other pod is touched")
    yield from _applications(before, after)
    for key in new:
        if key[0] == "Deployment" and key in old and old[key]["spec"]["template"] != new[key]["spec"]["template"]:
            yield f"{key[1]} restarts"


def _applications(before: Doc, after: Doc) -> Iterator[str]:
    old, new = _serve(before), _serve(after)
    for name in old:
        if name not in new:
            yield f"{_called(name)} ends; requests for it are refused from then on"
    for name, app in new.items():
        was = old.get(name)
        if was is None:
            yield f"{_called(name)} comes"
        elif was["args"] != app["args"] or was["import_path"] != app["import_path"]:
            how = "one after the other; streams are finished first" if name == "gateway" else \
                "one down before the next is up; streams are finished first"
            yield f"{_called(name)} restarts, {how}"
        elif was["deployments"] != app["deployments"]:
            yield f"{_called(name)}: replicas are added or end; none restarts"


def _called(name: str) -> str:
    return "the gateways' application" if name == "gateway" else f"the model {name.removeprefix('model-')}"


def _service(docs: Mapping[tuple[str, str], Doc]) -> Doc | None:
    return next((d for (kind, _), d in docs.items() if kind == "RayService"), None)


def _serve(service: Doc) -> dict[str, Doc]:
    told = yaml.load(service["spec"]["serveConfigV2"], _LOADER)
    return {app["name"]: app for app in told["applications"]}


def _templates(service: Doc) -> tuple[Doc, list[Doc]]:
    """A RayService's cluster and its worker groups without what KubeRay changes in place; it also appends groups so."""
    config = service["spec"]["rayClusterConfig"]
    return {k: v for k, v in config.items() if k != "workerGroupSpecs"}, [
        {k: v for k, v in group.items() if k not in _NUMBERS} for group in config["workerGroupSpecs"]]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for at, inner in enumerate(value):
            name = (inner.get("name") or inner.get("groupName")) if isinstance(inner, dict) else None
            yield from _leaves(inner, f"{path}[{name or at}]")
    else:
        yield path, value


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
