"""Whether a model can take an adapter: its form, its rank, and the shapes of its tensors beside the base's.

Only headers are read, never weights. The form is PEFT's (adapter_config.json, adapter_model.safetensors), which vLLM
reads. Shapes decide whose adapter it is; where the base's weights are not on this machine, its name has to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.adapters.sources import cached
from serving.errors import AdapterRefused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_PLAIN_QUANTISATION = ("fp8", "compressed-tensors", "modelopt")  # whose weights keep their shapes, most of them
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Base:
    """A model that adapters are for. `source`: as the fleet file names it, `folder`: its weights here, if they are."""

    name: str
    source: str
    folder: Path | None
    max_rank: int

    @classmethod
    def of(cls, name: str, source: str, revision: str | None, max_rank: int) -> Base:
        """The base, with its weights where they are on this machine already."""
        return cls(name, source, cached(source, revision), max_rank)


def inspect(folder: Path, base: Base, trust_base: bool = False) -> int:
    """The adapter's rank. `trust_base`: take it for the base's whatever names and shapes say.

    Raises: AdapterRefused, with one sentence that says what is wrong and what would be right.
    """
    config = _config(folder)
    rank = _rank(folder, config)
    if rank > base.max_rank:
        raise AdapterRefused(f"{folder}: its rank is {rank}, and {base.name!r} has room for rank {base.max_rank}; "
                             f"train it with a lower rank, or raise models.{base.name}.lora.max_rank in the fleet file")
    tensors = _tensors(folder)
    if not trust_base:
        _require_base(folder, config, tensors, base)
    return rank


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        whole = " It holds a whole model: name it as a model's source." if (folder / "config.json").is_file() else ""
        raise AdapterRefused(f"{folder}: has no {CONFIG}, so it is no LoRA adapter in PEFT's form.{whole}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterRefused(f"{file}: cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterRefused(f"{file}: peft_type is {kind!r}; only LORA can be served")
    for key, harmless, what in (("use_dora", (None, False), "DoRA"), ("modules_to_save", (None, []), "modules_to_save"),
                                ("bias", (None, "none"), "a bias")):
        if config.get(key) not in harmless:
            raise AdapterRefused(f"{file}: it was trained with {what}, which vLLM cannot serve; train it without")
    return config


def _rank(folder: Path, config: Mapping[str, Any]) -> int:
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    if not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        raise AdapterRefused(f"{folder / CONFIG}: r must be a whole number above 0; found {config.get('r')!r}")
    return max(ranks)


def _tensors(folder: Path) -> dict[str, dict[str, Shape]]:
    """Shapes of A and B by the module that they change."""
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = " (adapter_model.bin is a pickle, which can run code: convert it to safetensors)" if (
            folder / "adapter_model.bin").is_file() else ""
        raise AdapterRefused(f"{folder}: has no {WEIGHTS}{pickled}")
    found: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes(file).items():
        if (match := _TENSOR.fullmatch(name)) is not None:
            found.setdefault(match[1], {})[match[2]] = shape
    if not any(len(pair) == 2 for pair in found.values()):
        raise AdapterRefused(f"{file}: holds no pairs of lora_A and lora_B")
    return found


def shapes(file: Path) -> dict[str, Shape]:
    """Shapes of the tensors in a safetensors file, by name. Raises: AdapterRefused when it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterRefused(f"{file}: is not whole: {error}") from error


def _require_base(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Shape]],
                  base: Base) -> None:
    known = _weights(base)
    if not known:
        return _require_name(folder, config, base)
    found = {module: shape for module in tensors if (shape := _find(known, module)) is not None}
    missing = [module for module in tensors if module not in found and ".experts." not in module]
    if missing:
        some = "" if found else "none of its layers is"
        raise AdapterRefused(f"{folder}: was trained for another model ({_base_name(config)}): "
                             f"{some or f'its layer {missing[0]} is not'} in {base.name!r} ({base.source})")
    for module, shape in found.items():
        into, out = tensors[module].get("A", ())[-1:], tensors[module].get("B", ())[:1]
        if len(shape) == 2 and (*out, *into) != shape:
            raise AdapterRefused(
                f"{folder}: was trained for another model ({_base_name(config)}): its layer {module} goes from "
                f"{into[0] if into else '?'} to {out[0] if out else '?'} channels, that of {base.name!r} "
                f"({base.source}) from {shape[1]} to {shape[0]}")


def _require_name(folder: Path, config: Mapping[str, Any], base: Base) -> None:
    theirs = str(config.get("base_model_name_or_path") or "")
    if theirs.rstrip("/").rpartition("/")[2].lower() != base.source.rstrip("/").rpartition("/")[2].lower():
        raise AdapterRefused(
            f"{folder}: was trained for {theirs or 'a model that it does not name'}, and {base.name!r} is "
            f"{base.source}. Its weights are not on this machine, so that only names can be compared; --trust-base "
            "skips that")


def _base_name(config: Mapping[str, Any]) -> str:
    return str(config.get("base_model_name_or_path") or "it does not say which")


def _weights(base: Base) -> dict[str, Shape]:
    """Shapes of the base's weights by module; none where they cannot be read, or were packed by a quantisation."""
    if base.folder is None:
        return {}
    try:
        config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
        method = (config.get("quantization_config") or {}).get("quant_method", "")
    except (OSError, ValueError, AttributeError):
        return {}
    if method and method not in _PLAIN_QUANTISATION:
        return {}
    files = sorted(base.folder.glob("*.safetensors"))
    try:
        found = {name: shape for file in files for name, shape in shapes(file).items()}
    except AdapterRefused:
        return {}
    return {name.removesuffix(".weight"): shape for name, shape in found.items() if name.endswith(".weight")}


def _find(known: Mapping[str, Shape], module: str) -> Shape | None:
    """The base's weight that a module changes. Wrappers of several modalities put other names before `layers`."""
    if module in known:
        return known[module]
    tail = module[at:] if (at := module.find(".layers.")) >= 0 else ""
    return next((shape for name, shape in known.items() if tail and name.endswith(tail) and "visual" not in name), None)
