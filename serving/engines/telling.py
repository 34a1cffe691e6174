"""What a replica tells whoever decides how many there should be: its books, and what vLLM measures beside them.

Asked every other second by Ray Serve, which disables the asking for good after one answer that is no flat numbers; so
what cannot be read is left at what it was, and nothing here raises.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry

from serving.fleet.autoscaling.told import UNKNOWN, ReplicaTold

log = logging.getLogger(__name__)
_WINDOW_S = 30.0
_CACHE = "vllm:kv_cache_usage_perc"
_FIRST, _NEXT = "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"
_MADE = "vllm:generation_tokens_total"
_ASKED = (_CACHE, f"{_FIRST}_sum", f"{_FIRST}_count", f"{_NEXT}_sum", f"{_NEXT}_count", _MADE)


class _Books(Protocol):
    @property
    def told(self) -> ReplicaTold: ...


def engine_limits(client: Any) -> tuple[float, float]:
    """(tokens whose keys and values fit, most tokens of one step) of a running vLLM; -1 where it does not say."""
    try:
        config = client.vllm_config
        blocks, size = config.cache_config.num_gpu_blocks, config.cache_config.block_size
        return float((blocks or 0) * (size or 0)) or UNKNOWN, float(config.scheduler_config.max_num_batched_tokens)
    except (AttributeError, TypeError) as error:
        log.warning("vLLM does not say how much it takes (%s); whoever scales goes without", error)
        return UNKNOWN, UNKNOWN


class Teller:
    """Puts it together. `registry`: where vLLM measures."""

    def __init__(self, books: _Books, kv_tokens: float = UNKNOWN, batched_tokens: float = UNKNOWN,
                 registry: CollectorRegistry = REGISTRY) -> None:
        self._books, self._kv, self._batched, self._registry = books, kv_tokens, batched_tokens, registry
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def numbers(self, now: float) -> dict[str, float]:
        """As Ray Serve carries it. `now`: monotonic seconds."""
        told = replace(self._books.told, kv_tokens=self._kv, batched_tokens=self._batched)
        try:
            return self._measured(told, now).numbers()
        except Exception:
            log.exception("vLLM's measurements cannot be read; whoever scales goes without")
            return told.numbers()

    def _measured(self, told: ReplicaTold, now: float) -> ReplicaTold:
        found: dict[str, float] = {}
        for family in self._registry.restricted_registry(_ASKED).collect():
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        self._seen.append((now, found))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]

        def more(name: str) -> float:
            return found.get(name, 0.0) - before.get(name, 0.0)

        def mean(name: str) -> float:
            count = more(f"{name}_count")
            return more(f"{name}_sum") / count if count > 0 else UNKNOWN

        rate = more(_MADE) / (now - since) if now > since else 0.0
        return replace(told, cache=found.get(_CACHE, 0.0), ttft_s=mean(_FIRST), tpot_s=mean(_NEXT), tokens_per_s=rate)
