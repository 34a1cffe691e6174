"""LoRA adapters of a replica: found and loaded when the first request for one comes.

vLLM asks its registered resolvers when a request names a model that it does not know; this one knows the fleet file's
adapters as `model:adapter`, and those that were added since by what the gateway says of them beside each request. vLLM
keeps at most `max_cpu_loras` of them and lets the one go that was not used for longest; asked for again, it is loaded
again. May not happen in here: adapters of which neither the fleet file nor a gateway has told.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from vllm.config.lora import MaxLoRARanks
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from serving.fleet.adapters import shown
from serving.fleet.specs import LoraSpec

_RANK = 64  # for adapters that are not on this machine yet, whose rank is not known
_AT_ONCE = 4  # adapters that one step may mix; each takes device memory for the largest rank
_TOLD = 1_000  # newest adapters that are remembered; each request tells of its own anew


class FleetAdapters(LoRAResolver):
    """`sources`: name to folder or hub id, as engines are asked for it."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources, self._told = dict(sources), dict[str, str]()

    def tell(self, header: bytes) -> None:
        """What a gateway says of the adapter that a request is about to ask for: JSON with name, source and path."""
        said = json.loads(header)
        name = said["name"]
        if name not in self._told:
            while len(self._told) >= _TOLD:
                del self._told[next(iter(self._told))]
            self._told[name] = said["path"] if os.path.isdir(said["path"]) else said["source"]

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """vLLM's hook: the adapter of this name, on disk; None when there is none."""
        source = self._sources.get(lora_name) or self._told.get(lora_name)
        if source is None:
            return None
        path = source if os.path.isdir(source) else await asyncio.to_thread(_downloaded, source)
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=path)  # vLLM sets the number itself


def _downloaded(hub_id: str) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, allow_patterns=["adapter_*", "*.json"]))


def register(model: str, sources: Mapping[str, str]) -> FleetAdapters:
    """Make this process's vLLM know the adapters of `model`; `sources` by the adapter's own name."""
    made = FleetAdapters({f"{model}:{name}": source for name, source in sources.items()})
    LoRAResolverRegistry.register_resolver("flotilla", made)
    return made


def name_as_callers_do(models: Any) -> None:
    """Let vLLM's server call an adapter in its answers what callers call it. `models`: its OpenAIServingModels."""
    name_of = models.model_name
    models.model_name = lambda lora_request=None: shown(name_of(lora_request))


def engine_arguments(sources: Mapping[str, str], room: LoraSpec | None = None) -> dict[str, Any]:
    """vLLM's arguments for a model with these adapters, and with room for others. The largest rank costs time in every
    step, so it is no larger than they need."""
    if not sources and room is None:
        return {}
    need = max([*map(_rank, sources.values()), *([room.max_rank] if room else [])])
    rank = min((known for known in get_args(MaxLoRARanks) if known >= need), default=need)  # vLLM says what is wrong
    at_once = room.max_per_step if room else min(len(sources), _AT_ONCE)
    kept = room.max_loaded if room else max(len(sources), _AT_ONCE)
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": at_once, "max_cpu_loras": kept}


def _rank(source: str) -> int:
    config = Path(source) / "adapter_config.json"
    return int(json.loads(config.read_text(encoding="utf-8"))["r"]) if config.is_file() else _RANK
