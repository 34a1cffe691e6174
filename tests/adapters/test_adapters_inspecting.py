"""A bad adapter is told when it is added, in one sentence: missing, damaged, of another base, of too high a rank."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving import adapters
from serving.adapters.inspecting import CONFIG, WEIGHTS, Base
from serving.errors import AdapterRefused

MODULE = "model.layers.0.self_attn.q_proj"
Make = Callable[..., Path]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({f"{MODULE}.weight": np.zeros((12, 8), np.float32)}, folder / "model.safetensors")
    return Base.of("qwen", str(folder), None, 16)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def adapter(module: str = MODULE, into: int = 8, out: int = 12, rank: int = 4, **config: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        said = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "org/base", "bias": "none"} | config
        (folder / CONFIG).write_text(json.dumps(said))
        save_file({f"base_model.model.{module}.lora_A.weight": np.zeros((rank, into), np.float32),
                   f"base_model.model.{module}.lora_B.weight": np.zeros((out, rank), np.float32)}, folder / WEIGHTS)
        return folder

    return adapter


def refused(folder: Path, base: Base) -> str:
    with pytest.raises(AdapterRefused) as caught:
        adapters.inspect(folder, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_right_one_tells_its_rank(make: Make, base: Base) -> None:
    assert adapters.inspect(make(), base) == 4


@pytest.mark.parametrize(("config", "said"), [
    ({"rank": 32}, "its rank is 32, and 'qwen' has room for rank 16"), ({"rank_pattern": {"x": 64}}, "its rank is 64"),
    ({"peft_type": "IA3"}, "only LORA"), ({"use_dora": True}, "DoRA"), ({"bias": "all"}, "a bias"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"r": "8"}, "a whole number above 0"),
    ({"module": "model.layers.7.mlp.up_proj"}, "trained for another model (org/base): none of its layers"),
    ({"into": 4096}, f"its layer {MODULE} goes from 4096 to 12 channels, that of 'qwen'"),
    ({"out": 99}, "from 8 to 99"),
])
def test_one_that_the_model_cannot_take(make: Make, base: Base, config: dict[str, Any], said: str) -> None:
    assert said in refused(make(**config), base)


def test_what_is_not_there_or_not_whole(make: Make, base: Base, tmp_path: Path) -> None:
    assert base.folder is not None
    assert "It holds a whole model" in refused(base.folder, base)
    folder = make()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:50])
    assert "is not whole" in refused(folder, base)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    assert "is a pickle, which can run code" in refused(folder, base)
    (folder / CONFIG).write_text("{")
    assert "cannot be read" in refused(folder, base)
    for source, said in ((str(tmp_path / "none"), "no such folder"), ("../none", "no such folder"),
                         ("not an id", "an adapter is a folder of this machine, a hub id"),
                         (str(folder / CONFIG), "is a file")):
        with pytest.raises(AdapterRefused, match=said):
            adapters.folder_of(source)


def test_where_the_base_is_not_here_its_name_has_to_do(make: Make) -> None:
    folder = make()
    assert adapters.inspect(folder, Base("qwen", "other/Base", None, 16)) == 4
    far = Base("qwen", "org/else", None, 16)
    assert "was trained for org/base, and 'qwen' is org/else" in refused(folder, far)
    assert adapters.inspect(folder, far, trust_base=True) == 4


def test_wrappers_of_several_modalities_name_layers_otherwise(make: Make, base: Base) -> None:
    assert adapters.inspect(make(module=f"language_model.{MODULE}"), base) == 4
