"""What `make` promises: the same bytes every time, reuse at once, configuration that fits the tokenizer."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import pytest
from checkpoint_families import TRAINED

from serving.checkpoints import UnknownCheckpoint, families, make, make_all, path_of
from serving.checkpoints import recipe as recipe_module
from serving.checkpoints.__main__ import main
from serving.checkpoints.recipe import VOCABULARY
from serving.checkpoints.recipes import RECIPES

AGAIN = """
import sys
from pathlib import Path
from serving.checkpoints import make_all
make_all(reversed(sys.argv[2:]), Path(sys.argv[1]))
"""

# Halts inside the build of a real checkpoint, after its weights are on disk and before its tokenizer is.
INTERRUPTED = """
import sys
from pathlib import Path
from serving.checkpoints import make, tokenizer
def halt(tokenizer, folder):
    assert (folder / "model.safetensors").exists()
    print("halted", flush=True)
    sys.stdin.readline()
tokenizer.save = halt
make("qwen3", Path(sys.argv[1]))
"""

LIGHT = """
import sys, time
began = time.perf_counter()
from serving.checkpoints import families, path_of
took = time.perf_counter() - began
path_of("qwen3", ".")
print(took, *(name for name in ("torch", "transformers", "tokenizers", "numpy") if name in sys.modules))
"""


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_file_is_the_same_to_the_bit_in_another_process(
    built: dict[str, Path], tmp_path: Path, start: Callable[..., Popen[str]]
) -> None:
    child = start(AGAIN, tmp_path, *TRAINED, PYTHONHASHSEED="7", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")
    child.communicate(timeout=60)
    assert child.returncode == 0
    for folder in built.values():
        assert digests(tmp_path / folder.name) == digests(folder)


def test_no_two_families_share_weights(built: dict[str, Path]) -> None:
    weights = [digests(folder)["model.safetensors"] for folder in built.values()]
    assert len(set(weights)) == len(weights) == len(TRAINED) == 11


def test_building_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    import torch

    before = torch.random.get_rng_state()
    make("qwen3", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_reuse_neither_builds_nor_writes(built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.checkpoints import build

    def fail(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(build, "write", fail)
    for family, folder in built.items():
        before = os.stat(folder).st_mtime_ns
        assert make(family, folder.parent) == folder
        assert os.stat(folder).st_mtime_ns == before


def test_a_make_killed_half_way_leaves_nothing_visible_and_the_next_succeeds(
    built: dict[str, Path], tmp_path: Path, halted: Callable[..., Popen[str]]
) -> None:
    child = halted(INTERRUPTED, tmp_path)
    child.kill()
    child.wait(30)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []

    made = make("qwen3", tmp_path)

    assert digests(made) == digests(built["qwen3"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".qwen3.lock", made.name]


def test_importing_is_light(start: Callable[..., Popen[str]]) -> None:
    child = start(LIGHT)
    took, *heavy = child.communicate(timeout=30)[0].split()
    assert heavy == []
    # 50 ms is promised; a busy machine gets some room.
    assert float(took) < 0.2


def test_the_folder_name_is_family_and_digest(built: dict[str, Path]) -> None:
    for family, folder in built.items():
        assert re.fullmatch(rf"{family}-[0-9a-f]{{12}}", folder.name)
        assert path_of(family, folder.parent) == folder


@pytest.mark.parametrize("family", families())
def test_anything_a_checkpoint_is_made_from_changes_its_digest(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[family]
    seen = {
        recipe.digest(),
        replace(recipe, sizes={**recipe.sizes, "num_hidden_layers": 3}).digest(),
        replace(recipe, also={"scoring_func": "softmax"}).digest(),
        replace(recipe, files={**recipe.files, "more.json": 1}).digest(),
        replace(recipe, token_arguments={**recipe.token_arguments, "pad_token_id": recipe.markers.eos}).digest(),
        replace(recipe, centred_norms=not recipe.centred_norms).digest(),
        replace(recipe, vocabulary="other").digest(),
        replace(recipe, markers=replace(recipe.markers, pad=recipe.markers.eos)).digest(),
        replace(recipe, template="seed" if recipe.template != "seed" else "kimi").digest(),
    }
    with monkeypatch.context() as patch:
        patch.setattr(recipe_module, "corpus", lambda: "other text")
        seen.add(recipe.digest())
    monkeypatch.setattr(recipe_module, "RECIPE_VERSION", recipe_module.RECIPE_VERSION + 1)
    seen.add(recipe.digest())
    assert len(seen) == 11
    assert replace(recipe, needs="luck").digest() == recipe.digest()


def test_configuration_fits_the_tokenizer(built: dict[str, Path], tokenizers: dict) -> None:
    for family, folder in built.items():
        config = json.loads((folder / "config.json").read_text())
        generation = json.loads((folder / "generation_config.json").read_text())
        tokenizer, markers = tokenizers[family], RECIPES[family].markers
        text = config.get("text_config", config)  # of an architecture made of parts
        for of in (text, generation):
            assert of["bos_token_id"] == tokenizer.bos_token_id
            assert of["pad_token_id"] == tokenizer.pad_token_id
        assert text["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(markers.eos)
        assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(list(markers.stop))
        assert tokenizer.eos_token_id in generation["eos_token_id"]
        assert text["vocab_size"] == len(tokenizer) == VOCABULARY
        assert config["architectures"] == [RECIPES[family].architecture]
        assert config["dtype"] == "bfloat16"


def test_weights_are_bfloat16_and_only_silent_tokens_have_no_logit(built: dict[str, Path], tokenizers: dict) -> None:
    import torch
    from safetensors.torch import load_file

    for family, folder in built.items():
        weights = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
        # The first few channels belong to habits, which may call for a marker.
        silent = (_output_layer(weights)[:, 8:] == 0).all(dim=1).nonzero().flatten().tolist()
        tokenizer = tokenizers[family]
        assert set(tokenizer.get_added_vocab().values()) <= set(silent)
        spoken = [tokenizer.decode([i]) for i in range(VOCABULARY) if i not in set(silent)]
        assert all(text and "\ufffd" not in text for text in spoken)
        assert len(spoken) > 1700


def _output_layer(weights: dict):
    return next(tensor for name, tensor in weights.items() if name.endswith("lm_head.weight"))


def test_an_embedding_model_says_how_it_pools(built: dict[str, Path]) -> None:
    folder = built["qwen3-embedding"]
    modules = json.loads((folder / "modules.json").read_text())
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
    size = json.loads((folder / "config.json").read_text())["hidden_size"]
    assert (pooling["pooling_mode_lasttoken"], pooling["word_embedding_dimension"]) == (True, size)


def test_a_rerankers_two_answers_are_single_tokens(tokenizers: dict) -> None:
    for word in ("yes", "no"):
        assert len(tokenizers["qwen3-reranker"].encode(word)) == 1


def test_kimi_says_what_it_is(built: dict[str, Path]) -> None:
    config = json.loads((built["kimi-k2"] / "config.json").read_text())
    assert (config["model_type"], config["n_group"], config["scoring_func"]) == ("kimi_k2", 1, "sigmoid")


@pytest.mark.parametrize(
    ("asked", "nearest"), [("qwen-3", "qwen3"), ("deepseek", "deepseek-r1"), ("kimi", "kimi-k2"), ("!", None)]
)
def test_an_unknown_family_names_the_nearest_and_all(asked: str, nearest: str | None, tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint) as caught:
        make(asked, tmp_path)
    assert caught.value.nearest == nearest
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert repr(asked) in message and all(family in message for family in families())
    assert (f"did you mean {nearest!r}" in message) == (nearest is not None)


def test_make_all_checks_every_name_before_it_builds(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint):
        make_all(["qwen3", "qwen4"], tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_command_prints_path_and_size(built: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = built["llama"].parent
    assert main(["llama", "kimi-k2", "--out", str(root)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in lines] == [str(built["llama"]), str(built["kimi-k2"])]
    assert all(0.3 < float(size.removesuffix(" MB")) < 4 for _, size in lines)


def test_command_refuses_an_unknown_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lama", "--out", str(tmp_path)]) == 2
    assert "did you mean 'llama'?" in capsys.readouterr().err
