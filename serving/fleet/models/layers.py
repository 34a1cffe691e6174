"""What the layers of a model keep for each token and request, as vLLM caches it. Values only.

One `CacheLayers` per kind of layer; `cache` computes memory from them, `architecture` makes them from a config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["full", "sliding", "chunked", "latent", "index", "compressed", "linear"]
MEANING: dict[Kind, str] = {
    "full": "keys and values of every token (MHA, GQA, MQA)",
    "sliding": "keys and values of the last tokens (sliding window)",
    "chunked": "keys and values of one chunk (Llama 4's local attention)",
    "latent": "one latent vector per token, the same on every device (MLA)",
    "index": "an index vector per token beside the latent one (DeepSeek sparse attention)",
    "compressed": "one latent vector per group of tokens (DeepSeek-V4)",
    "linear": "a state per request, however long it is (Gated DeltaNet, Kimi Delta Attention)",
}


@dataclass(frozen=True)
class CacheLayers:
    """`layers` layers of one kind.

    heads: KV heads of one layer, shared out over tensor-parallel devices. width: elements per head and token, keys and
    values together. fixed_bytes: bytes per token instead, where they do not depend on the cache's data type. window:
    tokens that a sliding or chunked layer looks back. tokens_per_state: tokens that share one vector. state: for linear
    layers, (elements, bytes of one) of each part of a request's state.
    """

    kind: Kind
    layers: int
    heads: int = 1
    width: int = 0
    fixed_bytes: int = 0
    window: int = 0
    tokens_per_state: int = 1
    state: tuple[tuple[int, int], ...] = ()

    def token_bytes(self, element_bytes: int, tensor_parallel: int = 1) -> int:
        """Bytes that one layer keeps per token (per state, if tokens share one) on one device."""
        if self.kind == "linear":
            return 0
        heads = self.heads if self.kind in ("latent", "index", "compressed") else -(-self.heads // tensor_parallel)
        return self.fixed_bytes or heads * self.width * element_bytes

    def state_bytes(self, tensor_parallel: int = 1) -> int:
        """Bytes of one linear layer's state of one request on one device."""
        return sum(elements // tensor_parallel * size for elements, size in self.state)


def layout(kinds: tuple[CacheLayers, ...]) -> str:
    """The layout in the field's words: GQA, MLA, sliding window, hybrid, …"""
    found = {kind.kind for kind in kinds}
    if "compressed" in found:
        return "compressed latent attention"
    if "linear" in found:
        return "hybrid: linear attention and " + ("MLA" if "latent" in found else "GQA")
    if "latent" in found:
        return "MLA with sparse index" if "index" in found else "MLA"
    if found & {"sliding", "chunked"}:
        return f"GQA, {'sliding window' if 'sliding' in found else 'chunked local attention'} and full"
    return "GQA"
