"""What the gateway needs from the rest, declared by the gateway."""

from __future__ import annotations

from typing import Protocol

from serving.fleet.records import RequestRecord
from serving.fleet.tenants import Principal


class Keyring(Protocol):
    """Knows keys."""

    async def principal(self, key: str) -> Principal:
        """Who this key belongs to. Raises: InvalidKey."""
        ...


class ReplicaDirectory(Protocol):
    """Knows where a model's replicas listen."""

    async def choose(self, model: str) -> str:
        """Address (host:port) of a replica. Raises: NoReplica."""
        ...

    async def ready(self) -> dict[str, bool]:
        """Which models have a replica now."""
        ...


class Records(Protocol):
    """Keeps what happened."""

    def put(self, record: RequestRecord) -> None:
        """Keep a record. Must not block, must not raise, must not lose it."""
        ...


class Meter(Protocol):
    """Counts what happened, for Prometheus."""

    def begin(self, model: str) -> None:
        """A request has been routed to `model`."""
        ...

    def end(self, model: str) -> None:
        """That request is over."""
        ...

    def answered(self, record: RequestRecord, cost_usd: float | None) -> None:
        """A request, whole, with the cost that its answer named."""
        ...
