"""Dense layers, shared and routed experts, routers: how the families' config.json files name the same things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Mlps:
    """Parameters over all layers: dense (dense layers, shared experts, routers), experts (routed). count, per_token:
    routed experts of one layer and how many a token passes. mlp_width, expert_width: inner sizes."""

    dense: int
    experts: int
    count: int
    per_token: int
    mlp_width: int
    expert_width: int


def of(name: str, text: Config) -> Mlps:
    """The MLPs of a model."""
    hidden, layers = text["hidden_size"], text["num_hidden_layers"]
    count = _first(text, "n_routed_experts", "num_experts", "num_local_experts")
    width = text.get("intermediate_size") or 0
    if not count:
        return Mlps(layers * 3 * hidden * width, 0, 0, 0, width, 0)
    llama = name.startswith("Llama4")
    moe = _moe_layers(text, layers, llama)
    expert = width if llama or name == "GptOssForCausalLM" else text["moe_intermediate_size"]
    dense_width = text["intermediate_size_mlp"] if llama else width
    inner = text.get("routed_expert_hidden_size") or hidden  # experts may live in a narrower space
    one = 3 * inner * expert
    if name == "GptOssForCausalLM":
        one += 2 * expert + hidden  # biases
    shared = _shared_width(text, expert, llama)
    dense = moe * 3 * hidden * shared + (layers - moe) * 3 * hidden * dense_width
    dense += moe * (hidden * count + (count if name == "GptOssForCausalLM" else 0))
    if inner != hidden:
        dense += moe * 2 * hidden * inner
    per_token = _first(text, "num_experts_per_tok", "num_experts_per_token")
    return Mlps(dense, moe * count * one, count, per_token, max(dense_width if layers > moe else 0, shared), expert)


def _moe_layers(text: Config, layers: int, llama: bool) -> int:
    if llama:
        step = text.get("interleave_moe_layer_step", 1)
        return sum((i + 1) % step == 0 for i in range(layers))
    step = text.get("decoder_sparse_step") or 1
    dense = set(text.get("mlp_only_layers") or ())
    first = text.get("first_k_dense_replace") or 0
    return sum(i >= first and i not in dense and (i + 1) % step == 0 for i in range(layers))


def _shared_width(text: Config, expert: int, llama: bool) -> int:
    if llama:
        return expert
    number = _first(text, "n_shared_experts", "num_shared_experts")
    return number * expert if number else text.get("shared_expert_intermediate_size") or 0


def _first(text: Config, *keys: str) -> int:
    return next((int(text[k]) for k in keys if text.get(k)), 0)
