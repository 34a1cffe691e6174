"""How much memory the KV cache takes: bytes per token, and blocks as vLLM 0.29 hands them out.

vLLM cuts the cache into blocks of `block_size` tokens. Layers that keep the same kind of thing form groups of equally
many layers; a block holds one block's worth of each layer of one group, so a request of a hybrid model takes blocks for
every group. A linear layer's state is one block, and the block is made long enough to hold it. `Blocks` repeats that
arithmetic; `flotilla bench kv` holds it against engines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from serving.fleet.models.layers import CacheLayers

_LATENT_ALIGNMENT = 128  # tokens; of a block of a hybrid model with latent attention
ELEMENT_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True)
class Group:
    """Layers that share a table of blocks: `layers` of `kind`, padding layers counted."""

    kind: str
    layers: int
    window: int = 0


@dataclass(frozen=True)
class Blocks:
    """The cache of one device. block_size: tokens; block_bytes: of one block; groups: a request takes blocks for each.

    in_flight: tokens that may be scheduled and not yet done, which windows must hold besides. state_blocks: of a
    linear group per request: 1, with prefix caching 2.
    """

    block_size: int
    block_bytes: int
    groups: tuple[Group, ...]
    in_flight: int
    state_blocks: int

    def per_request(self, context: int) -> int:
        """Blocks that a request of `context` tokens holds at most."""
        return sum(self._of(group, context) for group in self.groups)

    def number(self, memory: float) -> int:
        """Blocks that fit into `memory` bytes."""
        return int(memory // self.block_bytes)

    def concurrency(self, memory: float, context: int) -> float:
        """Requests of `context` tokens that fit into `memory` bytes at once, as vLLM reports it."""
        return self.number(memory) / self.per_request(context)

    def request_bytes(self, context: int) -> int:
        """Bytes that a request of `context` tokens holds at most."""
        return self.per_request(context) * self.block_bytes

    def _of(self, group: Group, context: int) -> int:
        if group.kind == "linear":
            return self.state_blocks
        if group.kind == "chunked":
            return _up(min(group.window + self.in_flight, context), self.block_size)
        if group.kind == "sliding":
            # the window may begin in the middle of a block
            return _up(min(group.window - 1 + self.in_flight, context), self.block_size) + 1
        return _up(context, self.block_size)


def token_bytes(kinds: Iterable[CacheLayers], element_bytes: int = 2, tensor_parallel: int = 1) -> float:
    """Bytes by which a request's cache grows with each token on one device, windows being full already."""
    return sum(k.layers * k.token_bytes(element_bytes, tensor_parallel) / k.tokens_per_state
               for k in kinds if not k.window)


def fixed_bytes(kinds: Iterable[CacheLayers], element_bytes: int = 2, tensor_parallel: int = 1) -> float:
    """Bytes of a long request's cache that do not grow on one device: full windows, states."""
    return sum(k.layers * (k.window * k.token_bytes(element_bytes, tensor_parallel) + k.state_bytes(tensor_parallel))
               for k in kinds)


def blocks(kinds: tuple[CacheLayers, ...], element_bytes: int = 2, tensor_parallel: int = 1, block_size: int = 16,
           in_flight: int = 8192, prefix_caching: bool = True) -> Blocks:
    """The blocks of one device's cache."""
    states = 2 if prefix_caching else 1
    if any(k.kind == "compressed" for k in kinds):
        return _compressed(kinds, block_size, in_flight, states)
    if any(k.kind == "linear" for k in kinds):
        block_size = _hybrid_block(kinds, element_bytes, tensor_parallel, block_size)
    page = {k.kind: block_size * k.token_bytes(element_bytes, tensor_parallel) for k in kinds}
    if {k.kind for k in kinds} <= {"full", "latent", "index"}:  # every layer keeps every token: one table of blocks
        whole = sum(k.layers * page[k.kind] for k in kinds)
        return Blocks(block_size, whole, (Group(kinds[0].kind, sum(k.layers for k in kinds)),), in_flight, states)
    counts = [k.layers for k in kinds]
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    groups = tuple(Group(k.kind, size, k.window) for k in kinds for _ in range(_up(k.layers, size)))
    return Blocks(block_size, size * max(page.values()), groups, in_flight, states)


def _hybrid_block(kinds: tuple[CacheLayers, ...], element_bytes: int, tensor_parallel: int, block_size: int) -> int:
    """A block so long that one attention layer's part of it holds one linear layer's state."""
    token = max(k.token_bytes(element_bytes, tensor_parallel) for k in kinds)
    state = max(k.state_bytes(tensor_parallel) for k in kinds)
    unit = max(block_size, _LATENT_ALIGNMENT) if any(k.kind == "latent" for k in kinds) else block_size
    return max(block_size, unit * _up(state, unit * token))


def _compressed(kinds: tuple[CacheLayers, ...], block_size: int, in_flight: int, states: int) -> Blocks:
    """DeepSeek-V4: windows and compressed states of several sizes. One block stands for a token's growth here; what the
    real packing wastes is left out, and so is the state of the group that is being compressed."""
    grow = token_bytes(kinds)
    window = max(k.window for k in kinds)
    # the windows' share of a request, counted in growth tokens
    fixed = sum(k.layers * k.token_bytes(1) for k in kinds if k.window)
    width = max(1, round(fixed / grow))
    groups = (Group("compressed", 1), *(Group("sliding", 1, window) for _ in range(width)))
    return Blocks(block_size, round(grow * block_size), groups, in_flight, states)


def _up(value: int, step: int) -> int:
    return -(-value // step)
