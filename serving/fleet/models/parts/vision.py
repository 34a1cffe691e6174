"""Image encoders: parameters alone, for they cache nothing. Those that cannot be computed count as 0 and are small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def parameters(name: str, whole: Config) -> int:
    """Parameters of the image encoder and of what joins it to the text model."""
    config = whole.get("vision_config")
    if not isinstance(config, Mapping):
        return 0
    if "vt_hidden_size" in config:
        return _moon(config)
    if "depth" in config:
        return _qwen(config)
    return 0


def _qwen(config: Config) -> int:
    width, inner, depth = config["hidden_size"], config["intermediate_size"], config["depth"]
    block = 4 * width * width + 2 * width * inner + (4 * width + width + inner) + 4 * width
    patch = config["in_channels"] * config["temporal_patch_size"] * config["patch_size"] ** 2
    merged = width * config["spatial_merge_size"] ** 2
    merger = merged * merged + merged * config["out_hidden_size"]
    joins = 1 + len(config.get("deepstack_visual_indexes") or ())
    return depth * block + patch * width + config["num_position_embeddings"] * width + joins * merger


def _moon(config: Config) -> int:
    width, inner, depth = config["vt_hidden_size"], config["vt_intermediate_size"], config["vt_num_hidden_layers"]
    qkv = config.get("qkv_hidden_size") or width
    merged = config["mm_hidden_size"] * config["merge_kernel_size"][0] * config["merge_kernel_size"][1]
    block = 4 * width * qkv + 2 * width * inner
    return depth * block + merged * merged + merged * config["text_hidden_size"]
