"""The walls between the rooms stand: the contract of pyproject.toml, checked as `lint-imports` does."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache", *options], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


def test_the_contract_is_kept() -> None:
    found = lint()
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def test_a_broken_wall_would_be_seen(tmp_path: Path) -> None:
    """The check can fail: with the walls turned round, today's imports break them."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["serving"]\n[[tool.importlinter.contracts]]\n'
        'name = "upside down"\ntype = "layers"\nlayers = ["serving.fleet", "serving.gateway"]\n'
    )
    found = lint("--config", str(config))
    assert found.returncode != 0
    assert "1 broken" in found.stdout


def test_every_room_has_its_place_in_the_layers() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    placed = {name.strip() for layer in layers for name in layer.replace("|", ":").split(":")}
    rooms = {f"serving.{p.name}" for p in (REPOSITORY / "serving").iterdir() if (p / "__init__.py").exists()}
    assert rooms <= placed


@pytest.mark.parametrize("room", ["fleet", "gateway", "ledger", "telemetry"])
def test_light_rooms_stay_light(room: str) -> None:
    """Importing them brings neither Ray nor vLLM nor torch along, by whatever way."""
    modules = [
        f"serving.{room}.{p.stem}"
        for p in (REPOSITORY / "serving" / room).glob("*.py")
        if p.stem != "__init__"
    ]
    heavy = ("ray", "vllm", "torch", "transformers")
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "[]\n", found.stderr


def test_every_room_says_what_may_not_happen_in_it() -> None:
    for room in ("fleet", "gateway", "engines", "ledger", "telemetry"):
        said = ast.get_docstring(ast.parse((REPOSITORY / "serving" / room / "__init__.py").read_text())) or ""
        assert "May not happen in here" in said, room
