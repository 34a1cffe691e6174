"""What the gateway needs from the rest, declared by the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from serving.fleet.adapters import Adapter
from serving.fleet.balance import Replica
from serving.fleet.demand import Ask
from serving.fleet.records import RequestRecord
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Pass, Used

ModelState = Literal["ready", "starting", "scaled_to_zero", "unavailable", "failed"]


class Keyring(Protocol):
    """Knows keys."""

    async def principal(self, key: str) -> Principal:
        """Who this key belongs to. Raises: InvalidKey."""
        ...


class ReplicaDirectory(Protocol):
    """Knows where a model's replicas listen."""

    async def start(self) -> None:
        """Begin to watch."""
        ...

    def replicas(self, model: str) -> Sequence[Replica]:
        """Those that take requests now: the same object until the set changes. No I/O."""
        ...

    def state(self, model: str) -> ModelState:
        """Why there are replicas, or none. No I/O."""
        ...

    async def wake(self, model: str) -> None:
        """Ask for a replica of a model that is scaled to zero. Returns at once."""
        ...

    async def wait(self, model: str, timeout_s: float) -> bool:
        """Until the model has a replica; False when the time is over first."""
        ...


class AddedAdapters(Protocol):
    """Knows adapters that were added while the fleet runs."""

    async def start(self) -> None:
        """Begin to watch."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...

    @property
    def found(self) -> Sequence[Adapter]:
        """Those there are: the same object until they change. No I/O."""
        ...


class NoAdapters:
    """Where none are ever added."""

    found: Sequence[Adapter] = ()

    async def start(self) -> None:
        """Nothing to watch."""

    def close(self) -> None:
        """Nothing to stop."""


class MediaSource(Protocol):
    """Fetches files that requests name by URL."""

    async def fetch(self, url: str) -> tuple[str, bytes]:
        """Content type and bytes. Raises: MediaRefused, MediaUnavailable."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Records(Protocol):
    """Keeps what happened."""

    @property
    def accepting(self) -> bool:
        """Whether there is room for what new requests use; without, by the fleet file, none are taken. No I/O."""
        ...

    def put(self, record: RequestRecord) -> None:
        """Keep a record. Must not block, must not raise, must not lose it."""
        ...


class Meter(Protocol):
    """Counts what happened, for Prometheus."""

    def begin(self, model: str) -> None:
        """A request has been sent to a replica of `model`."""
        ...

    def end(self, model: str) -> None:
        """That request is over."""
        ...

    def queued(self, model: str, count: int) -> None:
        """So many requests wait in this gateway for a replica of `model`."""
        ...

    def moved(self, model: str, to: str) -> None:
        """A request for `model` goes to its fallback `to`."""
        ...

    def answered(self, record: RequestRecord, cost_usd: float | None, trace_id: str = "") -> None:
        """A request, whole, with the cost that its answer named, and its trace if it has one."""
        ...


class Access(Protocol):
    """Writes down who asked and what came of it."""

    def put(self, record: RequestRecord, cost_usd: float | None, trace_id: str) -> None:
        """A request is over. Must not block, must not raise."""
        ...


class Spans(Protocol):
    """The spans of one request that is traced."""

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        ...

    def part(self, name: str) -> None:
        """This part of the request begins, and the one before ends."""
        ...

    def asked(self, model: str, replica: str) -> tuple[tuple[bytes, bytes], ...]:
        """A replica is asked. Returns the headers that let its engine's spans go on from here."""
        ...

    def first_byte(self) -> None:
        """The answer has begun."""
        ...

    def end(self, record: RequestRecord, cost_usd: float | None) -> None:
        """The request is over. Must not block, must not raise."""
        ...


class Tracer(Protocol):
    """Decides which requests are traced."""

    def begin(self, method: str, path: str, traceparent: str | None, tracestate: str) -> Spans | None:
        """A request has come. None: it is not traced."""
        ...


class Quotas(Protocol):
    """Knows limits and counts what they limit."""

    async def start(self) -> None:
        """Begin to look after what is under way."""
        ...

    async def close(self) -> None:
        """Tell what can be told, and end."""
        ...

    def concerns(self, who: Principal, model: str) -> bool:
        """Whether anything limits this caller's requests to the model: else there is no need to ask or to settle."""
        ...

    async def admit(self, request_id: str, who: Principal, model: str, ask: Ask) -> Pass | None:
        """Reserve what a request may use. None: nothing limits it, and it needs no settlement.

        Raises: RateLimited, RequestTooLarge, BudgetExhausted, QuotasUnavailable.
        """
        ...

    def settle(self, request_id: str, used: Used) -> None:
        """The request is over. Must not block, must not raise; called once for every request that was admitted."""
        ...


class UsageReader(Protocol):
    """Knows what was used."""

    async def usage(self, tenant: str, query: str) -> dict[str, Any]:
        """A tenant's usage, as JSON. `query`: of the URL: by, since, until. Raises: MalformedRequest, LedgerError."""
        ...


class NoLimits:
    """Quotas of a gateway that has none."""

    async def start(self) -> None:
        """There is nothing to look after."""

    async def close(self) -> None:
        """There is nothing to tell."""

    def concerns(self, who: Principal, model: str) -> bool:
        """Nothing does."""
        return False

    async def admit(self, request_id: str, who: Principal, model: str, ask: Ask) -> Pass | None:
        """Nothing limits it."""
        return None

    def settle(self, request_id: str, used: Used) -> None:
        """It was not counted."""
