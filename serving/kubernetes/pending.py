"""Why a pod is not ready, in the words of scheduler and kubelet, and what to do about it. Pure.

Says nothing that the cluster has not said: a pod of which nothing is known yet is `starting`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Doc = dict[str, Any]
State = Literal["ready", "starting", "waiting", "failed", "ending", "done"]
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_SCHEDULING = (  # what the scheduler says, and what mends it
    (r"Insufficient nvidia\.com/gpu", "add GPU nodes, free GPUs, or lower min of the models on this profile"),
    (r"Insufficient (cpu|memory|ephemeral-storage)", "add nodes, or lower the group's resources"),
    (r"didn't match Pod's node (affinity|selector)", "set the group's nodeSelector to what your nodes have"),
    (r"untolerated taint", "set the group's tolerations to what your nodes are tainted with"),
    (r"persistentvolumeclaim|PersistentVolumeClaim", "see the claim: kubectl describe pvc; is there such a storage "
                                                     "class?"),
    (r"no nodes available", "add nodes"),
)
_INIT = {
    "node-labels": "asks its node for the labels that decide its price",
    "weights": "weights are fetched and checked",
    "sidecar": "its sidecar starts",
    "wait-gcs-ready": "waits for the head",
}


@dataclass(frozen=True)
class Standing:
    """How a pod is. `why`: empty where it is as it should be; `fix`: what to do, where something is to be done."""

    state: State
    why: str = ""
    fix: str = ""


def standing(pod: Doc, events: Iterable[Doc] = ()) -> Standing:
    """How a pod is. `events`: warnings of its namespace, oldest first."""
    meta, status = pod["metadata"], pod.get("status") or {}
    phase = status.get("phase", "Pending")
    if meta.get("deletionTimestamp"):
        return Standing("ending", f"since {meta['deletionTimestamp']}, until its streams are over")
    if phase == "Succeeded":
        return Standing("done")
    if phase == "Failed":
        return Standing("failed", _joined(status.get("reason"), status.get("message")) or _ended(pod),
                        _logs(pod, _worst(pod)))
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("Ready", {}).get("status") == "True":
        return Standing("ready")
    placed = conditions.get("PodScheduled", {})
    if placed.get("status") == "False":
        said = _joined(placed.get("reason"), placed.get("message"))
        return Standing("waiting", said, next((fix for word, fix in _SCHEDULING if re.search(word, said)), ""))
    for container in _containers(status):
        if (found := _stuck(pod, container)) is not None:
            return found
    if (said := _warned(meta["name"], events)) and not any(_runs(c) for c in _containers(status)):
        return Standing("waiting", said, f"kubectl -n {meta.get('namespace', '')} describe pod {meta['name']}")
    return Standing("starting", _doing(status))


def _stuck(pod: Doc, container: Mapping[str, Any]) -> Standing | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, where = waiting.get("reason", ""), container["name"]
    if reason in _PULL:
        return Standing("waiting", f"{where}: {_joined(reason, waiting.get('message'))}",
                        "check image.repository, image.tag, image.pullPolicy and image.pullSecrets")
    if reason in _CONFIG:
        return Standing("waiting", f"{where}: {_joined(reason, waiting.get('message'))}",
                        "`flotilla doctor` says which secrets are missing")
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        said = f"{where}: ended {container.get('restartCount', 0)} times, the last time with {_code(last)}"
        if last.get("reason") == "OOMKilled":
            return Standing("failed", said, "raise its memory limit in the values")
        return Standing("failed", said, _logs(pod, where, previous=True))
    return None


def _doing(status: Doc) -> str:
    """What a pod that is on its way is at."""
    for container in status.get("initContainerStatuses") or ():
        if _runs(container) and not (container.get("ready") or container.get("started")):
            return _INIT.get(container["name"], f"{container['name']} runs first")
    if not status.get("containerStatuses"):
        return ""
    if any(_runs(c) for c in status["containerStatuses"]):
        slow = [c["name"] for c in status.get("containerStatuses") or () if not c.get("ready")]
        return f"{', '.join(slow)} runs and is not ready yet"
    return "its image is pulled, or its containers are made"


def _containers(status: Doc) -> Iterator[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _runs(container: Mapping[str, Any]) -> bool:
    return "running" in (container.get("state") or {})


def _worst(pod: Doc) -> str:
    for container in _containers(pod.get("status") or {}):
        if ((container.get("state") or {}).get("terminated") or {}).get("exitCode"):
            return str(container["name"])
    return ""


def _ended(pod: Doc) -> str:
    for container in _containers(pod.get("status") or {}):
        if (ended := (container.get("state") or {}).get("terminated") or {}).get("exitCode"):
            return f"{container['name']} ended with {_code(ended)}"
    return "failed"


def _code(ended: Mapping[str, Any]) -> str:
    reason = ended.get("reason", "")
    return f"exit code {ended.get('exitCode', '?')}" + (f" ({reason})" if reason not in ("", "Error") else "")


def _logs(pod: Doc, container: str, previous: bool = False) -> str:
    chosen = f" -c {container}" if container else ""
    meta = pod["metadata"]
    return f"kubectl -n {meta.get('namespace', '')} logs {meta['name']}{chosen}" + (" --previous" if previous else "")


def _warned(name: str, events: Iterable[Doc]) -> str:
    said = ""
    for event in events:
        if (event.get("involvedObject") or {}).get("name") == name:
            said = _joined(event.get("reason"), event.get("message"))
    return said


def _joined(reason: str | None, message: str | None) -> str:
    return ": ".join(" ".join(part.split()) for part in (reason, message) if part)
