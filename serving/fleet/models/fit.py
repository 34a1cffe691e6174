"""Whether a model fits a device, and what is left for requests: weights + activations + overhead + KV cache.

Weights and cache are arithmetic (`weights`, `cache`). Activations and overhead are estimates: engines measure them at
their start and no two kernels agree, so a fit with little room is called tight, and a tight one needs a trial.
deployments/docs/models.md has the formulas, a worked example, and how far published engine logs were from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from serving.fleet.models import weights
from serving.fleet.models.architecture import Architecture
from serving.fleet.models.cache import ELEMENT_BYTES, Blocks, blocks, token_bytes
from serving.fleet.models.layers import CacheLayers
from serving.fleet.models.weights import Format, Split

GIB = 1024**3
# per device: CUDA context, kernels and allocator slack; buffers for talking to other devices; captured graphs. Chosen
# so that published engine logs come out within 3 GiB (deployments/docs/models.md)
CONTEXT_GIB, LINKS_GIB, GRAPHS_GIB = 2.0, 1.0, 1.5
TIGHT = 0.05  # of the budget: less room than that may be gone with another kernel
Verdict = Literal["fits", "tight", "no"]


@dataclass(frozen=True)
class Demand:
    """How the engine is set up; defaults are vLLM 0.29's. utilization: share of the memory that it takes.

    cache_bytes: a cache of fixed size (kv_cache_memory_bytes) instead of what is left. batched: tokens of one step.
    """

    context: int
    requests: int = 64
    batched: int = 8192
    utilization: float = 0.92
    cache_dtype: str = "auto"
    cache_bytes: float | None = None
    block_size: int = 16
    prefix_caching: bool = True
    eager: bool = False
    pooling: bool = False
    steps_in_flight: int = 2  # asynchronous scheduling

    @property
    def element_bytes(self) -> int:
        """Bytes of a cached number; what is not known counts as 16 bits."""
        return ELEMENT_BYTES.get(self.cache_dtype, 2)


def default_batched(accelerator: str, memory: float) -> int:
    """Tokens of one step that vLLM 0.29's server allows by default on a device."""
    if memory >= 160 * GIB:
        return 16384
    return 8192 if memory >= 70 * GIB and not accelerator.startswith("A100") else 2048


@dataclass(frozen=True)
class Fit:
    """The memory of the fullest of a replica's devices, bytes. left: for the cache; below 0, the rest alone is too
    much. reason: why such a split is impossible at all."""

    memory: float
    budget: float
    weights: float
    activations: float
    overhead: float
    left: float
    token_bytes: float
    demand: Demand
    blocks: Blocks = field(repr=False)
    reason: str | None = None

    @property
    def needed(self) -> float:
        """Bytes of cache that one request of the longest context takes: less, and vLLM refuses to start."""
        return float(self.blocks.request_bytes(self.demand.context))

    @property
    def room(self) -> float:
        """What is left beyond that, bytes."""
        return self.left - self.needed

    @property
    def verdict(self) -> Verdict:
        """fits, no, or tight: it should fit, but the estimated parts are about as large as the room."""
        if self.reason or self.room < 0:
            return "no"
        return "tight" if self.room < TIGHT * self.budget and self.demand.cache_bytes is None else "fits"

    def concurrency(self, context: int) -> int:
        """Requests of `context` tokens (prompt and answer) that the cache holds at once."""
        return int(self.blocks.concurrency(self.left, context)) if self.left > 0 and not self.reason else 0

    @property
    def longest(self) -> int:
        """The longest context of a single request, in whole blocks; 0 when nothing fits."""
        if self.left <= 0 or self.reason:
            return 0
        low, high, number = 0, 1 << 24, self.blocks.number(self.left)
        while high - low >= self.blocks.block_size:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks.per_request(middle) <= number else (low, middle)
        return low // self.blocks.block_size * self.blocks.block_size


def fit(model: Architecture, form: Format, split: Split, memory: float, demand: Demand,
        loaded_bytes: float | None = None, host: bool = False) -> Fit:
    """Whether a replica split so fits devices of `memory` bytes.

    `loaded_bytes`: weights as an engine's log stated them for the whole model, instead of the computed size. `host`:
    the device is a processor, whose memory holds no graphs and is not profiled: the cache has a fixed size or the rest.
    """
    own = weights.device_bytes(model, form, split)
    if loaded_bytes is not None:
        own *= loaded_bytes / weights.checkpoint_bytes(model, form)
    budget = memory if host else memory * demand.utilization
    active = activation_bytes(model, split, demand)
    over = 0.0 if host else (CONTEXT_GIB + (LINKS_GIB if split.devices > 1 else 0)
                             + (0 if demand.eager else GRAPHS_GIB)) * GIB
    left = budget - own - active - over
    if demand.cache_bytes is not None:
        left = min(left, demand.cache_bytes)
    kinds = tuple(_stage(k, split.pipeline) for k in model.cache)
    plan = blocks(kinds, demand.element_bytes, split.tensor, demand.block_size,
                  demand.batched * demand.steps_in_flight, demand.prefix_caching)
    return Fit(memory, budget, own, active, over, left, token_bytes(kinds, demand.element_bytes, split.tensor), demand,
               plan, weights.misfit(model, form, split))


def activation_bytes(model: Architecture, split: Split, demand: Demand) -> float:
    """The peak of one full step, bytes: hidden states and MLPs of all batched tokens, logits of all requests.

    16-bit numbers; ten hidden-sized ones per token, two of the MLP's inner width, and per chosen expert twice its input
    and three times its inner width; logits in 32 bits, twice. An estimate.
    """
    wide = 10 * model.hidden + 2 * model.mlp_width / split.tensor
    wide += 2 * model.experts_per_token * (model.hidden + 3 * model.expert_width / split.tensor)
    logits = 0 if demand.pooling else demand.requests * model.vocabulary * 4 * 2
    return demand.batched * wide * 2 + logits


def _stage(kind: CacheLayers, pipeline: int) -> CacheLayers:
    """The layers of the fullest of so many pipeline stages."""
    return replace(kind, layers=-(-kind.layers // pipeline))
