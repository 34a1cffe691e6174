"""What every store of counters can do, and the error of one that cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serving.errors import FlotillaError
from serving.fleet.quotas import Answer, Kind, Lease, Overdue, Part, Want

PATIENCE_S = 1.0  # that an answer may take

Settlement = tuple[str, tuple[Part, ...]]  # request id, what it used


class StoreAway(FlotillaError):
    """The counters cannot be asked just now. Whether the last question was heard is not known."""


class Store(Protocol):
    """Counters that several gateways share. Rules: `serving.fleet.quotas`; the time is the store's own.

    Everything raises StoreAway.
    """

    async def reserve(self, request_id: str, wants: Sequence[Want]) -> Answer:
        """Reserve all wants, or nothing."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Replace what reservations hold by what was used. May be repeated."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """These requests are still under way."""
        ...

    async def overdue(self) -> list[Overdue]:
        """Reservations whose owner has not renewed them."""
        ...

    async def seed(self, key: str, spent: int) -> None:
        """What had been spent of a money counter before the store knew it."""
        ...

    async def used(self, keys: Sequence[tuple[str, Kind]]) -> list[int]:
        """What is used of counters now."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...
