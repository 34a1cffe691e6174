"""LoRA adapters of a replica: found and loaded when the first request for one comes.

vLLM asks its registered resolvers when a request names a model that it does not know; this one knows the fleet's
adapters as `model:adapter`. May not happen in here: adapters that the fleet file does not
name.
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

_RANK = 64  # for adapters that are not on this machine yet, whose rank is not known
_AT_ONCE = 4  # adapters that one step may mix; each takes device memory for the largest rank


class FleetAdapters(LoRAResolver):
    """`sources`: addressed name to folder or hub id."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = dict(sources)

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """vLLM's hook: the adapter of this name, on disk; None when there is none."""
        source = self._sources.get(lora_name)
        if source is None:
            return None
        path = source if os.path.isdir(source) else await asyncio.to_thread(_downloaded, source)
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=path)  # vLLM sets the number itself


def _downloaded(hub_id: str) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, allow_patterns=["adapter_*", "*.json"]))


def register(model: str, sources: Mapping[str, str]) -> None:
    """Make this process's vLLM know the adapters of `model`; `sources` by the adapter's own name."""
    known = {f"{model}:{name}": source for name, source in sources.items()}
    LoRAResolverRegistry.register_resolver("flotilla", FleetAdapters(known))


def engine_arguments(sources: Mapping[str, str]) -> dict[str, Any]:
    """vLLM's arguments for a model with these adapters. The largest rank costs time in every step, so it is no larger
    than they need."""
    if not sources:
        return {}
    need = max(map(_rank, sources.values()))
    rank = min((known for known in get_args(MaxLoRARanks) if known >= need), default=need)  # vLLM says what is wrong
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": min(len(sources), _AT_ONCE),
            "max_cpu_loras": max(len(sources), _AT_ONCE)}


def _rank(source: str) -> int:
    config = Path(source) / "adapter_config.json"
    return int(json.loads(config.read_text(encoding="utf-8"))["r"]) if config.is_file() else _RANK
