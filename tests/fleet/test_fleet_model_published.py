"""Sizes against what others published: makers' papers and cards, and logs of real engines on real GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.fleet.models import entries
from serving.fleet.models.architecture import describe
from serving.fleet.models.cache import blocks, token_bytes
from serving.fleet.models.fit import GIB, Demand, fit
from serving.fleet.models.weights import Split, checkpoint_bytes

CATALOGUE = entries.load(Path(__file__).parents[2] / "deployments" / "catalogue")
# The two models of the DeepSeek paper's table that the catalogue does not have
QWEN_72B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "intermediate_size": 29568, "vocab_size": 152064, "max_position_embeddings": 131072}
LLAMA_405B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 16384, "num_hidden_layers": 126, "num_attention_heads": 128,
    "num_key_value_heads": 8, "intermediate_size": 53248, "vocab_size": 128256, "max_position_embeddings": 131072}


@pytest.mark.parametrize(("model", "kilobytes"), [("deepseek/deepseek-v3.1", 70.272), (QWEN_72B, 327.680),
                                                  (LLAMA_405B, 516.096)])
def test_cache_per_token_of_the_deepseek_paper(model: str | dict[str, Any], kilobytes: float) -> None:
    """Table 1 of "Insights into DeepSeek-V3" (2505.09343), 16 bits."""
    size = CATALOGUE[model].size if isinstance(model, str) else describe(model)
    assert token_bytes(size.cache) == kilobytes * 1000


@pytest.mark.parametrize(("model", "tokens", "gib"), [
    ("llama/llama-3.1-8b", 16_000, 1.95), ("llama/llama-3.1-8b", 128_000, 15.62),
    ("llama/llama-3.3-70b", 16_000, 4.88), ("llama/llama-3.3-70b", 128_000, 39.06)])
def test_cache_of_llama_by_its_announcement(model: str, tokens: int, gib: float) -> None:
    """Hugging Face's blog post on Llama 3.1, table of the KV cache in FP16."""
    assert tokens * token_bytes(CATALOGUE[model].size.cache) / GIB == pytest.approx(gib, abs=0.01)


@pytest.mark.parametrize(("model", "total", "active", "gib"), [("gpt-oss/gpt-oss-120b", 116.83, 5.13, 60.8),
                                                               ("gpt-oss/gpt-oss-20b", 20.91, 3.61, 12.8)])
def test_gpt_oss_by_its_model_card(model: str, total: float, active: float, gib: float) -> None:
    """Table 1 of OpenAI's model card (2508.10925)."""
    entry = CATALOGUE[model]
    assert entry.size.parameters / 1e9 == pytest.approx(total, abs=0.005)
    assert entry.size.active_parameters / 1e9 == pytest.approx(active, abs=0.005)
    assert checkpoint_bytes(entry.size, entry.weights["mxfp4"].format) / GIB == pytest.approx(gib, rel=0.005)


@pytest.mark.parametrize(("weights", "size", "off"), [("bf16", 55_563_006_776, 0.016), ("fp8", 30_866_866_928, 0.02)])
def test_files_of_qwen_by_the_recipe(weights: str, size: int, off: float) -> None:
    """vLLM recipes at 8959cf6, Qwen3.8-27B: bytes of the files, its draft head of 0.42 billion parameters with them."""
    entry = CATALOGUE["qwen/qwen3.8-27b"]
    assert checkpoint_bytes(entry.size, entry.weights[weights].format) == pytest.approx(size, rel=off)


def test_cache_of_deepseek_v4_by_its_announcement() -> None:
    """9.62 GiB per sequence of a million tokens in BF16, V4-Pro (AINews, 2026-04-25). States of 1024 and 256 bytes."""
    size = CATALOGUE["deepseek/deepseek-v4-pro"].size
    bytes_of = {584: 1024, 132: 256}
    grows = sum(k.layers * bytes_of[k.fixed_bytes] / k.tokens_per_state for k in size.cache if not k.window)
    assert grows * 2**20 / GIB == pytest.approx(9.62, abs=0.01)


@pytest.mark.parametrize(("model", "tensor", "gib", "tokens", "off"), [
    # vLLM recipes at 8959cf6, Kimi-K2-Think.md: 8 x H200
    ("kimi/kimi-k2-thinking", 8, 46.80, 715_072, 0.001),
    # vllm issue 21348: Qwen3-235B-A22B-FP8 on 4 x H100
    ("qwen/qwen3-235b-a22b-2507", 4, 8.11, 178_880, 0.02)])
def test_tokens_that_an_engine_found_room_for(model: str, tensor: int, gib: float, tokens: int, off: float) -> None:
    """`Available KV cache memory` and `GPU KV cache size` of logs."""
    plan = blocks(CATALOGUE[model].size.cache, tensor_parallel=tensor)
    assert plan.number(gib * GIB) * plan.block_size == pytest.approx(tokens, rel=off)


@pytest.mark.parametrize(("model", "memory_mib", "tensor", "utilization", "batched", "gib"), [
    ("kimi/kimi-k2-thinking", 143_771, 8, 0.9, 8192, 46.80),
    ("qwen/qwen3-235b-a22b-2507", 81_559, 4, 0.9, 8192, 8.11),
    ("gpt-oss/gpt-oss-120b", 81_559, 1, 0.95, 1024, 1.71)])  # vllm issue 27508
def test_memory_that_engines_had_left_for_the_cache(model: str, memory_mib: int, tensor: int, utilization: float,
                                                    batched: int, gib: float) -> None:
    """The estimated parts: within 3 GiB of what engines reported, and never less than they had."""
    entry = CATALOGUE[model]
    weights = next(iter(entry.weights.values()))
    demand = Demand(8192, 1024, batched, utilization)
    found = fit(entry.size, weights.format, Split(tensor), memory_mib * 1024**2, demand, weights.loaded_bytes)
    assert 0 <= found.left / GIB - gib < 3
