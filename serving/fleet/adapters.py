"""LoRA adapters that were added while the fleet runs, as the ledger keeps them.

An addition never changes: what replaces it is another one with an id of its own. So an engine can hold both while
requests for the old one end, and nothing cached for one is ever taken for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

OF = ":"  # between a model and its adapter
_ID = "#"  # between what callers name and which addition it is


@dataclass(frozen=True)
class Adapter:
    """One addition. `source`: as it was given; `path`: the folder where it was found. `tenants`: who may use it; None:
    whoever may use its model. Moments: Unix seconds."""

    adapter_id: str
    model: str
    name: str
    source: str
    path: str
    rank: int
    description: str
    tenants: tuple[str, ...] | None
    added_at: float
    removed_at: float | None = None

    @property
    def addressed(self) -> str:
        """What callers name: `model:adapter`."""
        return f"{self.model}{OF}{self.name}"

    @property
    def engine_name(self) -> str:
        """What engines know it by: nothing that an engine keeps under this name can be of another addition."""
        return f"{self.addressed}{_ID}{self.adapter_id}"


def shown(engine_name: str) -> str:
    """An engine's name for a model or adapter as callers know it."""
    return engine_name.partition(_ID)[0]
