"""A load test as a Job of the chart, beside a release that runs: made, followed, its report brought home.

The objects are the chart's own template, rendered with the release's values, so that a run from here is the run that
`loadtest.enabled` makes. The reports' volume stays. May not happen in here: knowing scenarios or reports.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import AlreadyThere, ClusterError, ClusterUnreachable, ConfigError, FlotillaError
from serving.kubernetes import inpods, kinds
from serving.kubernetes.cluster import Cluster, Doc
from serving.kubernetes.pending import standing

TEMPLATE = "templates/loadtest.yaml"
REPORTS = "/reports"
_RUN_MODULE = "loadtests.run"
_LOOK_S = 1.0
_FETCH_S = 300.0
_LOG_S = 300.0  # a log without a line for so long is asked for again
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
Pause = Callable[[float], None]


@dataclass(frozen=True)
class Run:
    """A run's objects, rendered. `name`: of the run, and of its folder in the volume."""

    name: str
    docs: tuple[Doc, ...]

    @property
    def jobs(self) -> list[Doc]:
        """Its Jobs: one, or one of the master and one of the workers."""
        return [d for d in self.docs if d["kind"] == "Job"]

    @property
    def main(self) -> Doc:
        """The Job whose pod makes the report."""
        named = [j for j in self.jobs if any(_RUN_MODULE in str(c.get("command")) and "--out" in str(c.get("command"))
                                             for c in j["spec"]["template"]["spec"]["containers"])]
        return (named or self.jobs)[0]

    @property
    def container(self) -> Doc:
        """The container of it that does."""
        found: Doc = self.main["spec"]["template"]["spec"]["containers"][0]
        return found


def named(name: str) -> str:
    """A run's name, checked. Raises: ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the run's name {name!r} becomes part of objects' names: use at most 30 lower-case letters, "
                          "digits and dashes")
    return name


def rendered(name: str, docs: Sequence[Doc], more: Sequence[str]) -> Run:
    """A run from what the chart renders. `more`: further arguments of the load test."""
    found = []
    for doc in docs:
        labels = doc["metadata"].get("labels") or {}
        doc = doc | {"metadata": doc["metadata"] | {"labels": labels | {"app.kubernetes.io/managed-by": "flotilla"}}}
        found.append(doc)
    run = Run(name, tuple(found))
    if not run.jobs:
        raise ConfigError(f"the chart renders no load test from {TEMPLATE}; is this Flotilla's chart?")
    run.container["command"] = [*run.container["command"], *more]
    return run


def start(cluster: Cluster, run: Run) -> None:
    """Make its objects. Raises: AlreadyThere when there is a run of that name."""
    for job in run.jobs:
        if cluster.get(kinds.JOBS, job["metadata"]["name"]) is not None:
            raise AlreadyThere(f"{cluster.context}: there is a run {run.name!r} already; give another --name, or bring "
                               "its report home with --fetch")
    for doc in sorted(run.docs, key=lambda d: d["kind"] == "Job"):
        cluster.apply(doc)


def follow(cluster: Cluster, run: Run, say: Callable[[str], None], pause: Pause = time.sleep) -> int:
    """Tell what happens until the run is over: why its pod waits, then its log. Returns the load test's exit code.

    Raises: ClusterError when the Job ends without one.
    """
    told, shown = "", 0
    name = run.main["metadata"]["name"]
    while True:
        pod = _pod(cluster, name)
        if pod is not None:
            found = standing(pod)
            if (code := _exit_code(pod, run.container["name"])) is not None:
                for line in _lines(cluster, pod, run.container["name"], shown, False):
                    say(line)
                return code
            if found.state == "failed":
                raise ClusterError(f"the load test's pod failed: {found.why}")
            if found.why and found.why != told and not _started(pod, run.container["name"]):
                told = found.why
                say(f"{pod['metadata']['name']}: {found.why}" + (f" → {found.fix}" if found.fix else ""))
            if _started(pod, run.container["name"]):
                with contextlib.suppress(ClusterUnreachable):  # the log goes on where it was
                    for line in _lines(cluster, pod, run.container["name"], shown, True):
                        say(line)
                        shown += 1
        job = cluster.get(kinds.JOBS, name)
        if job is None:
            raise ClusterError(f"the Job {name} is gone")
        if (why := _ended(job)) and pod is None:
            raise ClusterError(f"the Job {name} ended without a pod: {why}")
        pause(_LOOK_S)


def stop(cluster: Cluster, run: Run) -> None:
    """End the run; its pods have their grace to write down what they have measured."""
    for job in run.jobs:
        cluster.delete(kinds.JOBS, job["metadata"]["name"])


def fetch(cluster: Cluster, run: Run, target: Path, pause: Pause = time.sleep) -> None:
    """Bring the run's folder out of the volume into `target`, by a pod that does nothing else and goes afterwards.

    Raises: ClusterError when that pod does not come, with the reason; when there is no such folder.
    """
    reader = _reader(run)
    name = reader["metadata"]["name"]
    with contextlib.suppress(AlreadyThere):
        cluster.create(kinds.PODS, reader)
    try:
        _await_running(cluster, name, _FETCH_S, pause)
        with tempfile.TemporaryFile() as packed:
            inpods.copy(cluster, name, "reader", ["tar", "-C", REPORTS, "-czf", "-", run.name], packed)
            packed.seek(0)
            _unpack(packed, run.name, target)
    finally:
        cluster.delete(kinds.PODS, name)


def clear(cluster: Cluster, run: Run) -> None:
    """Take the run's objects away, but for the volume with the reports."""
    for doc in run.docs:
        if doc["kind"] != "PersistentVolumeClaim":
            cluster.delete(cluster.kind_of(doc), doc["metadata"]["name"])


def exporter(cluster: Cluster, release: str) -> str:
    """The pod in which `flotilla` reaches the ledger. Raises: ClusterError when none is ready."""
    pods = cluster.items(kinds.PODS, labels=f"flotilla.dev/release={release},flotilla.dev/part=exporter")
    for pod in pods:
        if standing(pod).state == "ready":
            return str(pod["metadata"]["name"])
    raise ClusterError(f"{cluster.context}: the exporter of {release} is not ready, so that no key can be made for the "
                       "load test; give one by FLOTILLA_API_KEY, or see `flotilla status --kubernetes`")


def _reader(run: Run) -> Doc:
    """A pod like the run's own that sleeps: same image, user and volume of reports; no secrets, nothing that goes."""
    job = run.main
    template = job["spec"]["template"]
    spec: dict[str, Any] = {k: v for k, v in template["spec"].items()
                            if k not in ("containers", "initContainers", "topologySpreadConstraints")}
    spec["volumes"] = [v for v in spec["volumes"] if "persistentVolumeClaim" in v or "emptyDir" in v]
    volumes = {v["name"] for v in spec["volumes"]}
    kept = {k: run.container[k] for k in ("image", "imagePullPolicy", "securityContext") if k in run.container}
    kept["volumeMounts"] = [m for m in run.container["volumeMounts"] if m["name"] in volumes]
    small = {"cpu": "100m", "memory": "128Mi"}
    container = kept | {"name": "reader", "command": ["sleep", "3600"], "resources": {"requests": small,
                                                                                    "limits": small}}
    labels = (template["metadata"].get("labels") or {}) | {"flotilla.dev/part": "loadtest-reader"}
    labels.pop("flotilla.dev/role", None)  # no worker is to take it for the leader
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": f"{job['metadata']['name'][:55]}-reader", "labels": labels},
            "spec": spec | {"restartPolicy": "Never", "activeDeadlineSeconds": 3600,
                            "terminationGracePeriodSeconds": 1, "containers": [container]}}


def _await_running(cluster: Cluster, name: str, seconds: float, pause: Pause) -> None:
    waited = 0.0
    while True:
        pod = cluster.get(kinds.PODS, name)
        found = standing(pod) if pod is not None else None
        if pod is not None and _started(pod, "reader"):
            return
        if found is not None and found.state == "failed" or waited >= seconds:
            why = f"{found.why}{f' → {found.fix}' if found.fix else ''}" if found and found.why else "it does not start"
            raise ClusterError(f"the report stays in the volume, because the pod {name} that would read it does not "
                               f"run: {why}; `flotilla loadtest --kubernetes --fetch` tries again")
        pause(_LOOK_S)
        waited += _LOOK_S


def _unpack(packed: Any, name: str, target: Path) -> None:
    try:
        with tarfile.open(fileobj=packed, mode="r:gz") as archive, tempfile.TemporaryDirectory(
                dir=target.parent) as folder:
            archive.extractall(folder, filter="data")
            (Path(folder) / name).rename(target)
    except (tarfile.TarError, OSError) as error:
        raise FlotillaError(f"{target}: the report came damaged: {error}") from error


def _lines(cluster: Cluster, pod: Doc, container: str, skip: int, follow: bool) -> Iterator[str]:
    """A container's log from a line on."""
    path = kinds.PODS.path(cluster.namespace, pod["metadata"]["name"]) + "/log"
    query = {"container": container} | ({"follow": "true"} if follow else {})
    for at, line in enumerate(cluster.lines(path, query, _LOG_S)):
        if at >= skip:
            yield line.decode(errors="replace")


def _pod(cluster: Cluster, job: str) -> Doc | None:
    """The Job's newest pod; of an indexed one the first."""
    pods = cluster.items(kinds.PODS, labels=f"batch.kubernetes.io/job-name={job}")
    index = "batch.kubernetes.io/job-completion-index"
    first = [p for p in pods if (p["metadata"].get("annotations") or {}).get(index, "0") == "0"]
    return max(first, key=lambda p: p["metadata"].get("creationTimestamp", ""), default=None)


def _statuses(pod: Doc, container: str) -> Iterator[Doc]:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status["name"] == container:
            yield status


def _started(pod: Doc, container: str) -> bool:
    return any({"running", "terminated"} & set(s.get("state") or {}) for s in _statuses(pod, container))


def _exit_code(pod: Doc, container: str) -> int | None:
    for status in _statuses(pod, container):
        if (ended := (status.get("state") or {}).get("terminated")) is not None:
            return int(ended.get("exitCode", 1))
    return None


def _ended(job: Doc) -> str:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition.get("message") or condition.get("reason") or condition["type"]
    return ""
