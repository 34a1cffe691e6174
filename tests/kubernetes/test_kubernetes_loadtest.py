"""`flotilla loadtest --kubernetes` on a release: its Job, its log, its key, its report; the test plays the kubelet."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import releases
import yaml
from fake_kubernetes import FakeKubernetes
from typer.testing import CliRunner

from serving.cli import load
from serving.cli.main import app
from serving.kubernetes import helm, loadjob

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flotilla"
Doc = dict[str, Any]


class Kubelet:
    """Runs nothing: a Job's pod says two lines and ends with `code`; the reader has the run's folder."""

    def __init__(self, server: FakeKubernetes, folder: bytes) -> None:
        self.server, self.folder, self.code, self.reads = server, folder, 0, True
        self.commands: list[list[str]] = []
        self.jobs: list[Doc] = []
        self.secrets: list[str] = []
        server.exec = self._exec
        server.objects.changed.append(self._changed)

    def _changed(self, what: str, doc: Doc) -> None:
        name = doc["metadata"]["name"]
        if what == "ADDED" and doc["kind"] == "Secret":
            self.secrets.append(base64.b64decode(doc["data"].get("key", "")).decode())
        if what == "ADDED" and doc["kind"] == "Job":
            self.jobs.append(doc)
            container = doc["spec"]["template"]["spec"]["containers"][0]["name"]
            self.server.objects.create("v1", "pods", "models", {
                "metadata": {"name": f"{name}-x", "labels": {"batch.kubernetes.io/job-name": name}},
                "spec": doc["spec"]["template"]["spec"],
                "status": {"phase": "Running", "containerStatuses": [{"name": container, "state": {"running": {}}}]}})
            self.server.logs[f"{name}-x", container] = ["10 s  5 requests", "20 s  9 requests"]
            threading.Timer(0.3, self._end, (f"{name}-x", container)).start()
        if what == "ADDED" and name.endswith("-reader") and self.reads:
            self.server.objects.patch("v1", "pods", "models", name, {"status": {
                "phase": "Running", "containerStatuses": [{"name": "reader", "state": {"running": {}}}]}}, "merge")

    def _end(self, pod: str, container: str) -> None:
        self.server.objects.patch("v1", "pods", "models", pod, {"status": {
            "phase": "Failed" if self.code else "Succeeded",
            "containerStatuses": [{"name": container, "state": {"terminated": {"exitCode": self.code}}}]}}, "merge")

    def _exec(self, pod: str, container: str, command: list[str]) -> tuple[bytes, bytes, int]:
        self.commands.append(command)
        if command[0] == "tar":
            return (self.folder, b"", 0) if command[-1] == "mix" else (b"", b"tar: no such folder\n", 2)
        if command[:3] == ["flotilla", "keys", "create"]:
            return json.dumps({"key": "flt_made", "key_id": "k1"}).encode(), b"", 0
        return b"revoked\n", b"", 0


def packed(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A run's folder as the Job leaves it, packed."""
    monkeypatch.syspath_prepend(ROOT / "tests/loadtests")
    from load_samples import CHAT, make_record, make_run, make_scenario

    scenario = make_scenario(models={"qwen": {"users": [CHAT]}})
    files = {"run.json": make_run(scenario).model_dump_json(),
             "records.jsonl": "".join(make_record(model="qwen", request_id=str(i)).model_dump_json() + "\n"
                                      for i in range(20))}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"mix/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def kubelet(server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Kubelet:
    """With a release of the laptop's fleet, whose exporter is ready."""
    releases.installed(server, "laptop-kind")
    releases.pod(server, "flotilla-exporter-1", "", "a", part="exporter")
    values = (CHART / "ci/laptop-kind-values.yaml").read_text()
    real = helm.run
    monkeypatch.setattr(helm, "run", lambda arguments, given="": values if arguments[0] == "get"
                        else real(arguments, given))
    monkeypatch.setattr(loadjob, "_LOOK_S", 0.05)
    monkeypatch.setattr(loadjob, "_FETCH_S", 1.0)
    return Kubelet(server, packed(monkeypatch))


def run(tmp_path: Path, *more: str, **env: str) -> Any:
    return CliRunner().invoke(app, ["loadtest", "laptop-mix", "--kubernetes", "--chart", str(CHART), "--name", "mix",
                                    "--out", str(tmp_path / "home"), *more], env=env)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that came home has a report of one line, at once: for tests that ask about what was before it."""
    line = json.dumps({"verdict": {"result": "pass"}})
    monkeypatch.setattr(load, "_report", lambda folder, *told: ["sh", "-c", f"echo '{line}' > '{folder}/report.json'"])


def test_a_run_from_job_to_report(kubelet: Kubelet, server: FakeKubernetes, tmp_path: Path) -> None:
    done = run(tmp_path, "--duration", "20", "--processes", "3")
    assert (tmp_path / "home/report.json").exists(), (done.output, done.exception)
    verdict = json.loads((tmp_path / "home/report.json").read_text())["verdict"]["result"]
    assert done.exit_code == {"pass": 0, "fail": 1, "invalid": 3}[verdict]
    assert json.loads((tmp_path / "home/context.json").read_text())["fleet"]["name"] == "laptop"
    job, workers = kubelet.jobs
    assert workers["spec"]["parallelism"] == 3
    container = job["spec"]["template"]["spec"]["containers"][0]
    command = container["command"]
    assert command[:3] == ["python", "-m", "loadtests.run"] and command[-2:] == ["--duration", "20.0"]
    assert command[command.index("--workers") + 1] == "3" and command[command.index("--out") + 1] == "/reports/mix"
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "flotilla", "Helm does not know of it"
    assert "20 s  9 requests" in done.stderr
    assert "flt_made" in kubelet.secrets and ["flotilla", "keys", "revoke", "k1"] in kubelet.commands
    left = [d for kind in ("Job", "Secret", "ConfigMap", "Service", "PersistentVolumeClaim")
            for d in server.objects.of(kind)
            if "loadtest" in d["metadata"]["name"] or "reports" in d["metadata"]["name"]]
    assert [d["kind"] for d in left] == ["PersistentVolumeClaim"], "the volume stays"
    assert not [p for p in server.objects.of("Pod") if p["metadata"]["name"].endswith("reader")]


def test_the_jobs_scenario_is_the_file(kubelet: Kubelet, server: FakeKubernetes, tmp_path: Path,
                                       unreported: None) -> None:
    told: list[Doc] = []
    server.objects.changed.append(lambda what, doc: told.append(doc) if doc["kind"] == "ConfigMap" else None)
    run(tmp_path)
    (scenario,) = {d["data"]["scenario.yaml"] for d in told if "scenario.yaml" in d["data"]}
    assert yaml.safe_load(scenario) == yaml.safe_load((ROOT / "loadtests/scenarios/laptop-mix.yaml").read_text())


def test_a_key_of_ones_own_is_used_and_not_revoked(kubelet: Kubelet, tmp_path: Path, unreported: None) -> None:
    run(tmp_path, FLOTILLA_API_KEY="flt_mine")
    assert "flt_mine" in kubelet.secrets and not [c for c in kubelet.commands if c[0] == "flotilla"]


def test_the_load_tests_exit_code_is_ours(kubelet: Kubelet, tmp_path: Path, unreported: None) -> None:
    kubelet.code = 4
    assert run(tmp_path).exit_code == 4


def test_a_report_that_cannot_be_read_stays_in_the_volume(kubelet: Kubelet, server: FakeKubernetes,
                                                          tmp_path: Path) -> None:
    kubelet.reads = False
    done = run(tmp_path)
    assert "the report stays in the volume" in str(done.exception) and "--fetch" in str(done.exception)
    assert ["flotilla", "keys", "revoke", "k1"] in kubelet.commands
    kubelet.reads = True
    assert run(tmp_path, "--fetch").exit_code in (0, 1, 3) and (tmp_path / "home/report.html").exists()


def test_what_is_wrong_is_said(kubelet: Kubelet, server: FakeKubernetes, tmp_path: Path) -> None:
    assert "lower-case letters" in str(run(tmp_path, "--name", "Mix_1").exception)
    assert "forward the Job's port" in str(run(tmp_path, "--web", "127.0.0.1:1").exception)
    assert "no release 'other'" in str(run(tmp_path, "--release", "other").exception)
    server.denied = {("get", "pods/exec")}
    assert "you may not run commands in pods" in str(run(tmp_path).exception)
    server.denied = set()
    server.objects.delete("v1", "pods", "models", "flotilla-exporter-1")
    assert "the exporter of flotilla is not ready" in str(run(tmp_path).exception)
