"""vLLM's registry, read without vLLM, says what vLLM says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.checkpoints import families, recipe_for
from serving.errors import UnsupportedArchitecture
from serving.weights import architectures

ASK = "from vllm import ModelRegistry; print('archs', *sorted(ModelRegistry.get_supported_archs()))"


def test_the_names_are_those_of_vllm_itself() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=120)
    told = next(line for line in done.stdout.splitlines() if line.startswith("archs ")).split()[1:]
    assert architectures.known() == set(told) and len(told) > 200


def test_reading_them_is_light() -> None:
    code = ("import sys; from serving.weights import architectures as a; assert a.known();"
            "print([m for m in ('vllm', 'torch', 'ray', 'transformers') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("family", families())
def test_every_small_checkpoint_is_of_one(family: str) -> None:
    architectures.require({"architectures": [recipe_for(family).architecture]}, family)


@pytest.mark.parametrize(("name", "says"), [
    ("Qwen33ForCausalLM", "nearest that it knows is Qwen3"), ("Phi3SmallForCausalLM", "vLLM 0.9.2 was the last"),
    ("BartForConditionalGeneration", "a plugin can"), ("Xyzzy", "a newer vLLM may"),
])
def test_what_it_cannot_run_comes_with_what_helps(name: str, says: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=says):
        architectures.require({"architectures": [name]}, "org/x")


def test_a_config_that_names_none() -> None:
    for config in ({}, {"architectures": []}, {"architectures": "Qwen3ForCausalLM"}):
        with pytest.raises(UnsupportedArchitecture, match="names no architecture"):
            architectures.require(config, "org/x")


def test_overrides_and_remote_code_and_transformers_are_taken_into_account() -> None:
    strange = {"architectures": ["StrangeForCausalLM"]}
    architectures.require(strange, "org/x", remote_code=True)
    architectures.require(strange, "org/x", overridden=["Qwen3ForSequenceClassification"])
    with pytest.raises(UnsupportedArchitecture, match="OddForCausalLM"):
        architectures.require({"architectures": ["Qwen3ForCausalLM"]}, "org/x", overridden=["OddForCausalLM"])
    assert "CTRLLMHeadModel" not in architectures.known()
    architectures.require({"architectures": ["CTRLLMHeadModel"]}, "org/x")  # transformers' own class may do
