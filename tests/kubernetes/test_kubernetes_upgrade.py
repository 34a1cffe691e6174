"""`flotilla upgrade` with the real Helm on a release in the tests' API server; the test plays KubeRay."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cluster_samples as samples
import pytest
import releases
import yaml
from fake_kubernetes import FakeKubernetes
from typer.testing import CliRunner

from serving.cli import upgrade
from serving.cli.main import app
from serving.errors import ConfigError, FlotillaError
from serving.kubernetes import helm, rendered, upgrades

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flotilla"
LAPTOP = ROOT / "deployments/fleets/laptop.yaml"
OVERLAY = CHART / "ci/overlays/laptop-kind.yaml"
Doc = dict[str, Any]


def run(file: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["upgrade", str(file), "-f", str(OVERLAY), "--chart", str(CHART), *more],
                              env={"COLUMNS": "100"})


def changed(tmp_path: Path, change: Any) -> Path:
    """The laptop's fleet file with a change, beside the price books."""
    told = yaml.safe_load(LAPTOP.read_text())
    for name in ("prices", "accelerator_prices", "catalogue"):
        if told.get(name):
            told[name] = str((LAPTOP.parent / told[name]).resolve())
    change(told)
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(told))
    return file


class KubeRay:
    """Takes every RayService up at once and says that it serves."""

    def __init__(self, server: FakeKubernetes) -> None:
        self.server, self.state = server, "RUNNING"
        server.objects.changed.append(self._changed)

    def _changed(self, what: str, doc: Doc) -> None:
        if doc["kind"] != "RayService" or what == "DELETED":
            return
        told = yaml.safe_load(doc["spec"]["serveConfigV2"])["applications"]
        models = [a["name"].removeprefix("model-") for a in told]
        wanted = releases.serving(*models, state=self.state)
        if doc.get("status") != wanted:
            self.server.objects.patch("ray.io/v1", "rayservices", "models", doc["metadata"]["name"],
                                      {"status": wanted}, "merge")


@pytest.fixture
def kuberay(server: FakeKubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> KubeRay:
    """With the laptop's fleet installed by Helm."""
    samples.fill(server, [samples.definition("rayservices.ray.io", "RayService", "ray.io")])
    kuberay = KubeRay(server)
    monkeypatch.setattr(upgrade, "_HELM_FLAGS", ["--disable-openapi-validation"])
    monkeypatch.setattr(upgrade, "_LOOK_S", 0.05)
    values = CliRunner().invoke(app, ["render", "values", str(changed(tmp_path, lambda told: None))]).stdout
    helm.run(["install", "flotilla", str(CHART), "-n", "models", "-f", "-", "-f", str(OVERLAY),
              "--disable-openapi-validation"], values)
    return kuberay


def test_plan_upgrade_and_back(kuberay: KubeRay, server: FakeKubernetes, tmp_path: Path) -> None:
    same = changed(tmp_path, lambda told: None)
    assert run(same, "--plan").stdout.startswith("nothing changes")
    fleet = changed(tmp_path, lambda told: told["models"]["llama"]["engine"].update(max_num_seqs=17))
    told = json.loads(run(fleet, "--plan", "--json").stdout)
    assert {(o["kind"], o["name"]) for o in told["objects"]} == {
        ("ConfigMap", "flotilla-fleet"), ("Deployment", "flotilla-exporter"), ("RayService", "flotilla")}
    said = " ".join(told["effects"])
    assert "the model llama restarts" in said and "flotilla-exporter restarts" in said and "qwen" not in said
    done = run(fleet)
    assert "say --yes" in str(done.exception) and "max_num_seqs: 17" not in of_fleet(server)
    done = run(fleet, "--yes", "--diff")
    assert done.exit_code == 0 and "max_num_seqs: 17" in of_fleet(server), (done.output, done.exception)
    assert "+      max_num_seqs: 17" in done.stdout and "ready" in done.stdout
    done = run(fleet, "--rollback", "--yes")
    assert done.exit_code == 0 and "max_num_seqs: 17" not in of_fleet(server)
    assert "the model llama restarts" in done.stdout


def test_one_that_does_not_come_up_says_how_to_go_back(kuberay: KubeRay, server: FakeKubernetes,
                                                       tmp_path: Path) -> None:
    kuberay.state = "DEPLOY_FAILED"
    fleet = changed(tmp_path, lambda told: told["models"]["llama"]["engine"].update(max_num_seqs=17))
    done = run(fleet, "--yes", "--wait", "0.2")
    assert "does not serve what it should after 0.2 s" in str(done.exception)
    assert "llama DEPLOY_FAILED" in str(done.exception) and "--rollback` goes back" in str(done.exception)


def test_what_is_not_there(server: FakeKubernetes, kuberay: KubeRay) -> None:
    assert "no release 'other'" in str(run(LAPTOP, "--release", "other").exception)
    assert "no revision before 1" in str(run(LAPTOP, "--rollback").exception)
    assert "--revision is for --rollback" in str(run(LAPTOP, "--revision", "3").exception)


def of_fleet(server: FakeKubernetes) -> str:
    return next(d for d in server.objects.of("ConfigMap") if d["metadata"]["name"] == "flotilla-fleet")["data"][
        "fleet.yaml"]


PRODUCTION = releases.docs("h200-production")


def effects(change: Any) -> str:
    after = copy.deepcopy(PRODUCTION)
    change(rendered.ray_service(after)["spec"])
    return " ".join(upgrades.plan(PRODUCTION, after).effects)


def group(spec: Doc, name: str) -> Doc:
    return next(g for g in spec["rayClusterConfig"]["workerGroupSpecs"] if g["groupName"] == name)


def test_effects_of_pods() -> None:
    image = "registry.example.com/flotilla:0.2.0"
    said = effects(lambda s: group(s, "h200")["template"]["spec"]["containers"][0].update(image=image))
    assert "pods change: a second cluster" in said
    said = effects(lambda s: (s["upgradeStrategy"].update(type="None"),
                              s["rayClusterConfig"].update(rayVersion="2.61.0")))
    assert "stay as they are until the RayService is made anew" in said
    assert effects(lambda s: group(s, "h200").update(maxReplicas=9)) == \
        "the group h200 has 2 to 9 pods instead of 2 to 4; no other pod is touched"
    said = effects(lambda s: s["rayClusterConfig"]["workerGroupSpecs"].append(
        copy.deepcopy(group(s, "h200")) | {"groupName": "b200"}))
    assert said == "the group b200 comes, in the cluster that there is"


def test_effects_of_applications() -> None:
    def serve(change: Any) -> str:
        def put(spec: Doc) -> None:
            told = yaml.safe_load(spec["serveConfigV2"])
            change(told["applications"])
            spec["serveConfigV2"] = yaml.safe_dump(told)
        return effects(put)

    assert "the model deepseek-r1 ends" in serve(lambda apps: apps.pop(0))
    assert "the gateways' application restarts, one after" in serve(lambda apps: apps[-1]["args"].update(digest="x"))
    assert "none restarts" in serve(lambda apps: apps[0]["deployments"][0].update(autoscaling_config={}))
    assert "the model new comes" in serve(lambda apps: apps.append(apps[0] | {"name": "model-new"}))


def test_what_kubernetes_would_refuse_is_told_before_helm_is_asked(kuberay: KubeRay, server: FakeKubernetes,
                                                                  tmp_path: Path) -> None:
    fleet, over = changed(tmp_path, lambda told: None), tmp_path / "run.yaml"
    run_ = {"enabled": True, "apiKey": "key", "scenario": "name: x\n"}
    over.write_text(yaml.safe_dump({"loadtest": run_}))
    done = run(fleet, "-f", str(over), "--yes", "--wait", "0")
    assert done.exit_code == 0, (done.output, done.exception)
    over.write_text(yaml.safe_dump({"loadtest": run_ | {"workers": 2}, "gateways": {"replicas": 2}}))
    (before,) = server.objects.of("RayService")
    done = run(fleet, "-f", str(over), "--yes", "--wait", "0")
    assert isinstance(done.exception, ConfigError)
    assert "Job flotilla-loadtest-mix: spec.template cannot change; a run that was made stays what it is: give the " \
        "next one another loadtest.name" in str(done.exception)
    assert "✗ Job flotilla-loadtest-mix" in done.stdout
    assert server.objects.of("RayService") == [before]
    with pytest.raises(FlotillaError, match="is invalid: spec.template"):  # as Helm would have found out in the middle
        helm.run(["upgrade", "flotilla", str(CHART), "-n", "models", "--reuse-values", "--set", "loadtest.workers=2",
                  "--disable-openapi-validation"])


def test_secrets_are_not_shown() -> None:
    def secret(value: str) -> Doc:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": value}}

    assert list(upgrades.difference(secret("YQ=="), secret("Yg=="))) == ["data.key: another value"]
