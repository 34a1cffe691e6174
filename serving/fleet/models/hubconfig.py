"""A checkpoint that is no catalogue entry: its size and format from its own config.json.

Quantised checkpoints say in `quantization_config` what they are; forms that are not known here are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import ConfigError
from serving.fleet.models.architecture import Architecture, describe
from serving.fleet.models.weights import Format


def read(path: Path) -> tuple[Architecture, Format]:
    """Size and format of the checkpoint in a folder, or of a config.json. Raises: ConfigError."""
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not a readable config.json: {error}") from error
    if not isinstance(config, Mapping):
        raise ConfigError(f"{file}: not a config.json: it must be a JSON object")
    return describe(config, str(file)), format_of(config, str(file))


def format_of(config: Mapping[str, Any], where: str = "config.json") -> Format:
    """How the checkpoint stores matrices. Raises: ConfigError for a form that is not known here."""
    inner = config.get("text_config")
    places = (config, inner) if isinstance(inner, Mapping) else (config,)
    own = next((place["quantization_config"] for place in places if place.get("quantization_config")), None)
    if not own:
        return Format()
    if not isinstance(own, Mapping):
        raise ConfigError(f"{where}: quantization_config must be an object")
    method = str(own.get("quant_method", ""))
    if method == "fp8":
        return Format("fp8", "mxfp4" if config.get("expert_dtype") == "fp4" else "fp8")
    if method == "mxfp4":
        return Format("bf16", "mxfp4")
    if method == "compressed-tensors":
        return _compressed(own, where)
    raise ConfigError(f"{where}: weights of the form {method!r} cannot be sized here; known: none, fp8, mxfp4, "
                      "compressed-tensors with integers or MXFP4")


def _compressed(own: Mapping[str, Any], where: str) -> Format:
    groups = own.get("config_groups")
    kinds = {(str(g["weights"].get("type")), g["weights"].get("num_bits")) for g in groups.values()} if isinstance(
        groups, Mapping) and all(isinstance(g, Mapping) and isinstance(g.get("weights"), Mapping)
                                 for g in groups.values()) else set()
    # attention and shared experts that are left out of it stay in 16 bits
    partly = any("attn" in str(name) for name in own.get("ignore") or ())
    if kinds == {("int", 4)}:
        return Format("bf16" if partly else "int4", "int4")
    if kinds == {("float", 4)}:
        return Format("bf16" if partly else "mxfp4", "mxfp4")
    if kinds == {("float", 8)}:
        return Format("bf16" if partly else "fp8", "fp8")
    raise ConfigError(f"{where}: compressed weights of {sorted(kinds) or 'no kind'} cannot be sized here")
