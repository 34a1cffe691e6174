"""Small LoRA adapters: the same to the bit each time, different by name, and no harm to the base's habits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.checkpoints import UnknownCheckpoint, make_adapter


@pytest.fixture(scope="module")
def adapter(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(built["qwen3"], "qwen3", "pirate", tmp_path_factory.mktemp("adapters"))


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_it_fits_every_projection_of_its_base(built: dict[str, Path], adapter: Path) -> None:
    from safetensors.torch import load_file

    base = load_file(built["qwen3"] / "model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    found = weights(adapter)
    projections = {key.removesuffix(".weight"): value.shape for key, value in base.items() if "_proj." in key}
    assert len(projections) == 14
    for name, (rows, columns) in projections.items():
        down, up = (found[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        assert (down.shape, up.shape) == ((config["r"], columns), (rows, config["r"]))
    assert len(found) == 2 * len(projections)
    assert set(config["target_modules"]) == {name.rpartition(".")[2] for name in projections}


def test_it_changes_the_base_but_not_where_habits_are(built: dict[str, Path], adapter: Path) -> None:
    from safetensors.torch import load_file

    base, found = load_file(built["qwen3"] / "model.safetensors"), weights(adapter)
    for name in ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"):
        down, up = (found[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
        delta, weight = up @ down, base[f"{name}.weight"].float()
        silent = (weight == 0).all(dim=1)
        assert silent.any() and (delta[silent] == 0).all()
        assert 0.1 < float(delta[~silent].std() / weight[~silent].std()) < 1


def test_it_is_made_once_and_again_the_same(built: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    before = adapter.stat().st_mtime_ns
    assert make_adapter(built["qwen3"], "qwen3", "pirate", adapter.parent) == adapter
    assert adapter.stat().st_mtime_ns == before
    again = make_adapter(built["qwen3"], "qwen3", "pirate", tmp_path)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / file).read_bytes() == (adapter / file).read_bytes()


def test_two_names_are_two_adapters(built: dict[str, Path], adapter: Path) -> None:
    other = make_adapter(built["qwen3"], "qwen3", "formal", adapter.parent)
    assert other != adapter
    assert (other / "adapter_model.safetensors").read_bytes() != (adapter / "adapter_model.safetensors").read_bytes()


def test_a_base_without_a_recipe_is_refused(built: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint):
        make_adapter(built["qwen3"], "", "pirate", tmp_path)
    assert list(tmp_path.iterdir()) == []
