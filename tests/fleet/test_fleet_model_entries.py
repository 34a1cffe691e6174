"""The catalogue: every model that it promises is there, whole, sourced, and small enough for the devices it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.fleet import prices
from serving.fleet.hardware import SPECS
from serving.fleet.models import entries
from serving.fleet.models.entries import Catalogue, Entry
from serving.fleet.models.fit import Demand, default_batched, fit

ROOT = Path(__file__).parents[2]
CATALOGUE = entries.load(ROOT / "deployments" / "catalogue")
PROMISED = {
    "deepseek/deepseek-r1-0528", "deepseek/deepseek-r1-distill-qwen-32b", "deepseek/deepseek-v3.1",
    "deepseek/deepseek-v4-pro", "qwen/qwen3-0.6b", "qwen/qwen3-8b", "qwen/qwen3-30b-a3b", "qwen/qwen3-235b-a22b-2507",
    "qwen/qwen3-coder-480b-a35b", "qwen/qwen3-next-80b-a3b", "qwen/qwen3-vl-8b", "qwen/qwen3-vl-32b", "qwen/qwen3-32b",
    "qwen/qwen3-embedding-0.6b", "qwen/qwen3-reranker-0.6b", "qwen/qwen3.8-27b", "kimi/kimi-k2-instruct-0905",
    "kimi/kimi-k2-thinking", "kimi/kimi-k3", "seed/seed-oss-36b", "llama/llama-3.1-8b", "llama/llama-3.3-70b",
    "llama/llama-4-scout", "llama/llama-4-maverick", "gpt-oss/gpt-oss-20b", "gpt-oss/gpt-oss-120b",
}


def test_every_promised_model_is_there() -> None:
    assert set(CATALOGUE) >= PROMISED


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_is_whole(name: str) -> None:
    entry = CATALOGUE[name]
    book = prices.load(ROOT / "deployments" / "prices" / "api.json")
    # published counts are rounded; V4-Pro's counts a draft layer, Llama 4's an image encoder whose size is not stored
    assert entry.size.parameters / 1e9 == pytest.approx(entry.parameters.total, rel=0.035)
    # makers differ in whether tables count as active
    assert entry.size.active_parameters / 1e9 == pytest.approx(entry.parameters.active, rel=0.21, abs=0.1)
    assert all(comparator.price in book.prices for comparator in entry.comparators)
    assert entry.comparators or any("no comparator" in limit for limit in entry.limits)
    assert all(variant.accelerator in SPECS and variant.recommended_by for variant in entry.variants)
    assert {"config", "variants"} <= set(entry.sources)
    if not any(weights.revision for weights in entry.weights.values()):
        assert any("revision" in line for line in entry.unverified)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_variant_fits_its_devices(name: str) -> None:
    entry = CATALOGUE[name]
    for variant in entry.variants:
        weights, device = entry.weights[variant.precision], SPECS[variant.accelerator]
        args = {**entry.args, **variant.args}
        demand = Demand(variant.max_model_len, variant.max_num_seqs, default_batched(device.name, device.memory),
                        args.get("gpu_memory_utilization", 0.92), args.get("kv_cache_dtype", "auto"),
                        block_size=args.get("block_size", 16))
        found = fit(entry.size, weights.format, variant.split, device.memory, demand, weights.loaded_bytes)
        assert found.verdict == "fits", (variant.name, found)


@pytest.mark.parametrize("asked", ["qwen/qwen3-8b", "qwen3-8b", "Qwen/Qwen3-8B"])
def test_an_entry_is_found_by_its_name_and_by_a_hub_id(asked: str) -> None:
    assert CATALOGUE.named(asked).name == "qwen/qwen3-8b"


def test_one_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="has no model 'qwen/qwen3-9b'; did you mean 'qwen/qwen3-8b'"):
        CATALOGUE.named("qwen/qwen3-9b")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no catalogue of models"):
        entries.load(tmp_path / "none")


# (what stands in the entry of Qwen3-8B, what is put there, what the message says)
WRONG = {
    "unknown key": ("reasoning_parser:", "reasoning_parse:", "did you mean 'reasoning_parser'"),
    "missing architecture": ("architecture: Qwen3ForCausalLM\n", "", "architecture: is missing"),
    "architecture without a formula": ("Qwen3ForCausalLM", "Qwen9ForCausalLM", "did you mean 'Qwen3ForCausalLM'"),
    "size without a key": ("  hidden_size: 4096\n", "", "hidden_size is missing; Qwen3ForCausalLM needs it"),
    "text for a number": ("hidden_size: 4096", "hidden_size: wide", "not the configuration of Qwen3ForCausalLM"),
    "precision that is not there": ("precision: fp8", "precision: fp9", "no weights 'fp9'; did you mean 'fp8'"),
    "devices that do not add up": ("count: 1", "count: 2", "is 1, count is 2"),
    "longer than the model": ("max_model_len: 24576", "max_model_len: 99999", "above the model's context of 40960"),
    "no revision": ("b968826d9c46dd6066d109eabc6255188de91218", "main", "is not a revision"),
    "endpoint that is not there": ("messages, tokenize", "mesages, tokenize", "'messages'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_entry_is_refused_with_a_message_that_helps(case: str, tmp_path: Path) -> None:
    before, after, says = WRONG[case]
    text = (ROOT / "deployments/catalogue/qwen/qwen3-8b.yaml").read_text()
    assert before in text
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "qwen3-8b.yaml").write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError) as caught:
        Catalogue(tmp_path).named("qwen3-8b")
    assert says in str(caught.value) and "qwen3-8b.yaml" in str(caught.value)


def test_the_schema_describes_every_field() -> None:
    schema = Entry.model_json_schema()
    assert set(schema["required"]) >= {"title", "licence", "architecture", "config", "weights", "variants", "sources"}
    assert schema["additionalProperties"] is False
