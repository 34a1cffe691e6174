"""The store of a gateway that counts alone: a book of its own, asked without a way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from serving.fleet.quotas import Answer, Book, Kind, Lease, Overdue, Want
from serving.quotastore.base import Settlement


class OwnBook:
    """A `Store` in this process. `clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.book = Book()

    async def reserve(self, request_id: str, wants: Sequence[Want]) -> Answer:
        """See `Store`."""
        return self.book.reserve(request_id, wants, self._clock())

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store`."""
        for request_id, parts in settlements:
            self.book.settle(request_id, parts, self._clock())

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `Store`."""
        self.book.renew(leases, self._clock())

    async def overdue(self) -> list[Overdue]:
        """See `Store`."""
        return self.book.overdue(self._clock())

    async def seed(self, key: str, spent: int) -> None:
        """See `Store`."""
        self.book.seed(key, spent, self._clock())

    async def used(self, keys: Sequence[tuple[str, Kind]]) -> list[int]:
        """See `Store`."""
        return self.book.used(keys, self._clock())

    async def close(self) -> None:
        """There is nothing to let go."""
