"""Softmax attention: grouped queries (Ainslie et al. 2023), latent (DeepSeek-V2, 2405.04434), sparse and compressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.fleet.models.layers import CacheLayers

Config = Mapping[str, Any]
# vLLM packs a latent of 448 fp8 and 64 16-bit numbers with 8 bytes of scales (DeepSeek-V4's cache)
_V4_STATE_BYTES = 584
_SCALE_BYTES = 4  # of one index vector


def grouped(name: str, text: Config, layers: int | None = None) -> tuple[tuple[CacheLayers, ...], int, float, float]:
    """(cache, parameters, FLOPs per pair in full layers, in windowed layers) of `layers` layers, all if None."""
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    kv_heads = text.get("num_key_value_heads") or heads
    width = text.get("head_dim") or hidden // heads
    count = text["num_hidden_layers"] if layers is None else layers
    gate = 2 if text.get("attn_output_gate", name.startswith("Qwen3Next")) else 1
    one = hidden * heads * width * gate + 2 * hidden * kv_heads * width + heads * width * hidden
    if text.get("attention_bias") or name == "Qwen2ForCausalLM":  # Qwen2 has it without saying so
        one += (heads + 2 * kv_heads) * width
    if name == "GptOssForCausalLM":
        one += hidden + heads  # output bias, attention sinks
    if name.startswith("Qwen3"):
        one += 2 * width  # norms of queries and keys
    kinds = _windows(name, text, count, kv_heads, 2 * width)
    flops = 4 * heads * width
    windowed = sum(k.layers for k in kinds if k.window)
    return kinds, count * one, flops * (count - windowed), flops * windowed


def _windows(name: str, text: Config, count: int, heads: int, width: int) -> tuple[CacheLayers, ...]:
    types = text.get("layer_types")
    if name.startswith("Llama4") and text.get("attention_chunk_size"):
        # every fourth layer has no position embedding and sees everything
        step = text.get("no_rope_layer_interval", 4)
        full = sum((i + 1) % step == 0 for i in range(count))
        return (CacheLayers("full", full, heads, width),
                CacheLayers("chunked", count - full, heads, width, window=text["attention_chunk_size"]))
    if types and "sliding_attention" in types:
        sliding = sum(t == "sliding_attention" for t in types)
        return (CacheLayers("full", count - sliding, heads, width),
                CacheLayers("sliding", sliding, heads, width, window=text["sliding_window"]))
    return (CacheLayers("full", count, heads, width),)


def latent(text: Config, layers: int) -> tuple[tuple[CacheLayers, ...], int, float]:
    """(cache, parameters, FLOPs per pair) of `layers` layers of latent attention.

    FLOPs are those of decoding, where queries meet the latent itself; prompts are computed with fewer.
    """
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    rank, rope, nope, value = (text[k] for k in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    query = text.get("q_lora_rank")
    one = (hidden * query + query * heads * (nope + rope) + query) if query else hidden * heads * (nope + rope)
    one += hidden * (rank + rope) + rank + rank * heads * (nope + value) + heads * value * hidden
    if text.get("mla_use_output_gate"):
        one += hidden * heads * value
    kinds: tuple[CacheLayers, ...] = (CacheLayers("latent", layers, 1, rank + rope),)
    flops = 2.0 * heads * (2 * rank + rope)
    if text.get("index_topk"):
        index, index_heads = text["index_head_dim"], text["index_n_heads"]
        one += query * index_heads * index + hidden * index + hidden * index_heads + 2 * index
        kinds += (CacheLayers("index", layers, 1, fixed_bytes=index + _SCALE_BYTES),)
        # every pair is looked at by the index; attention itself is for the best index_topk only
        flops = 2.0 * index_heads * index
    return kinds, layers * one, layers * flops


def compressed(text: Config) -> tuple[tuple[CacheLayers, ...], int, float, float]:
    """(cache, parameters, FLOPs per pair, in the window) of DeepSeek-V4's attention, every layer by its ratio."""
    hidden, heads, width, layers = (text[k] for k in ("hidden_size", "num_attention_heads", "head_dim",
                                                      "num_hidden_layers"))
    query, groups, out = text["q_lora_rank"], text["o_groups"], text["o_lora_rank"]
    index, index_heads = text["index_head_dim"], text["index_n_heads"]
    ratios = list(text["compress_ratios"])[:layers]
    one = hidden * (query + width) + query * heads * width + query + width + heads
    one += heads * width * out + groups * out * hidden
    total, flops = layers * one, 0.0
    kinds = [CacheLayers("sliding", layers, 1, fixed_bytes=_V4_STATE_BYTES, window=text["sliding_window"])]
    for ratio in sorted({r for r in ratios if r > 1}):
        count, twice = ratios.count(ratio), 1 + (ratio == 4)
        total += count * (2 * hidden * twice * width + ratio * twice * width)
        kinds.append(CacheLayers("compressed", count, 1, fixed_bytes=_V4_STATE_BYTES, tokens_per_state=ratio))
        if ratio == 4:  # only these choose by an index, which is compressed as well
            total += count * (query * index_heads * index + hidden * index_heads + 4 * hidden * index)
            kinds.append(CacheLayers("index", count, 1, fixed_bytes=index + _SCALE_BYTES, tokens_per_state=ratio))
            flops += count * 2 * index_heads * index / ratio
        else:
            flops += count * 4 * heads * width / ratio
    return tuple(kinds), total, flops, 4.0 * heads * width * layers
