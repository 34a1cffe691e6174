"""What the init container leaves is what the settings read. The API server itself is not in these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.kubernetes.nodelabels import main
from serving.settings import Settings

LABELS = {"node.kubernetes.io/instance-type": "p5.48xlarge", "topology.kubernetes.io/region": "us-east-1"}


def test_settings_read_what_the_init_container_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-1")
    out = tmp_path / "labels.json"
    asked: list[str] = []
    assert main(["--out", str(out)], lambda node: asked.append(node) or LABELS) == 0
    assert asked == ["node-1"]
    assert Settings.read({"FLOTILLA_NODE_LABELS": f"@{out}"}).labels() == LABELS


def test_outside_a_pod_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NODE_NAME", "node-1")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["--out", str(tmp_path / "x")]) == 1
    assert "no pod with a service account" in capsys.readouterr().err
    monkeypatch.delenv("NODE_NAME")
    assert main(["--out", str(tmp_path / "x")]) == 1
    assert "NODE_NAME is not set" in capsys.readouterr().err
