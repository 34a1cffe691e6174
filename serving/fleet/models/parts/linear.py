"""Linear attention: a state of constant size per request.

Gated DeltaNet (2412.06464), Kimi Delta Attention (2510.26692).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.fleet.models.layers import CacheLayers

Config = Mapping[str, Any]
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


def full_layers(text: Config) -> int:
    """How many of a hybrid model's layers attend in full."""
    types = text.get("layer_types")
    if types:
        return sum(t == "full_attention" for t in types)
    every = text.get("full_attention_interval", 4)
    return sum((i + 1) % every == 0 for i in range(text["num_hidden_layers"]))


def delta_net(text: Config, layers: int) -> tuple[tuple[CacheLayers, ...], int]:
    """(cache, parameters) of `layers` layers of Gated DeltaNet."""
    hidden, kernel = text["hidden_size"], text["linear_conv_kernel_dim"]
    keys, key = text["linear_num_key_heads"], text["linear_key_head_dim"]
    values, value = text["linear_num_value_heads"], text["linear_value_head_dim"]
    key_size, value_size = keys * key, values * value
    channels = 2 * key_size + value_size
    one = hidden * (channels + value_size) + hidden * 2 * values + channels * kernel + value_size * hidden
    one += 2 * values + value
    model = _SIZES.get(str(text.get("dtype") or text.get("torch_dtype") or "bfloat16"), 2)
    recurrent = _SIZES.get(str(text.get("mamba_ssm_dtype", "")), model)
    state = ((channels * (kernel - 1), model), (values * value * key, recurrent))
    return (CacheLayers("linear", layers, values, state=state),), layers * one


def kimi_delta(text: Config, layers: int) -> tuple[tuple[CacheLayers, ...], int]:
    """(cache, parameters) of `layers` layers of Kimi Delta Attention."""
    own, hidden = text["linear_attn_config"], text["hidden_size"]
    heads, width, kernel = own["num_heads"], own["head_dim"], own["short_conv_kernel_size"]
    size = heads * width
    one = hidden * 4 * size + hidden * width + width * size + hidden * heads + 3 * size * kernel + size + heads + width
    if own.get("use_full_rank_gate"):
        one += hidden * size
    else:
        one += hidden * width + width * size
    state = ((3 * size * (kernel - 1), 2), (heads * width * width, 4))
    return (CacheLayers("linear", layers, heads, state=state),), layers * one
