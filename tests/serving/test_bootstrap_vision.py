"""The one file that setting up changes in a package: exactly, once, and never another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deployments"))
import bootstrap  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "torchvision" / "_meta_registrations.py"
    made.parent.mkdir()
    return made


def test_a_known_file_is_emptied_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    file.write_text("register()\n")
    monkeypatch.setattr(bootstrap, "_REGISTRATIONS", hashlib.sha256(file.read_bytes()).hexdigest())
    bootstrap.empty_registrations(tmp_path)
    emptied = file.read_text()
    assert "register" not in emptied and compile(emptied, "x", "exec").co_names == ()
    bootstrap.empty_registrations(tmp_path)
    assert file.read_text() == emptied


def test_any_other_file_is_left_alone(file: Path, tmp_path: Path) -> None:
    file.write_text("something newer\n")
    with pytest.raises(bootstrap.SetupError, match="torchvision"):
        bootstrap.empty_registrations(tmp_path)
    assert file.read_text() == "something newer\n"


def test_it_is_pinned_by_hash_and_has_a_layer() -> None:
    pins = (ROOT / "deployments" / "requirements" / "vision.txt").read_text()
    assert "torchvision==0.28.0" in pins and pins.count("--hash=sha256:") >= 4
    stamps = bootstrap._wanted(bootstrap.VENV, ["torch", "cpu", "vision", "own"])
    assert [stamp.partition("-")[0] for stamp in stamps] == ["torch", "cpu", "vision", "own"]
