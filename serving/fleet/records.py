"""The rows that the fleet leaves behind: what the ledger keeps and every report adds up.

Written by the gateway (`RequestRecord`) and by each replica (`ReplicaRecord`, `ChargeRecord`, `TotalRecord`). A
replica always writes absolute sums, never increments, so that writing twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["finished", "failed", "aborted", "rejected"]
EngineOutcome = Literal["running", "finished", "failed", "aborted"]
Bucket = Literal["direct", "waste", "idle", "cold_start", "overhead"]
BUCKETS: tuple[Bucket, ...] = ("direct", "waste", "idle", "cold_start", "overhead")
TokenKind = Literal["prompt", "cached", "completion"]
TOKEN_KINDS: tuple[TokenKind, ...] = ("prompt", "cached", "completion")


def bucket_of(outcome: EngineOutcome) -> Bucket:
    """Where a request's charge belongs: work that no one received is waste."""
    return "waste" if outcome in ("aborted", "failed") else "direct"


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request. `cached` are part of `prompt`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.completion + other.completion)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.cached - other.cached, self.completion - other.completion)

    def of(self, kind: TokenKind) -> int:
        """The count of one kind."""
        return int(getattr(self, kind))


@dataclass(frozen=True)
class RequestRecord:
    """One request as the gateway saw it. Times: Unix seconds and durations in seconds; None where it never came to it.

    `caller_id`: the x-request-id that the caller sent. `outcome`: finished (the caller got a whole answer), rejected
    (refused for what it asked), failed (the fleet's fault), aborted (the caller went away).
    """

    request_id: str
    caller_id: str
    tenant: str
    key_id: str
    model: str
    endpoint: str
    code: int
    outcome: Outcome
    started_at: float
    duration_s: float
    stream: bool
    ttft_s: float | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class ReplicaRecord:
    """The books of one replica. Nanoseconds and nano-USD are absolute sums since it started."""

    replica_id: str
    model: str
    accelerator: str
    endpoint: str
    price_nanousd_per_hour: int
    started_at: float
    seen_at: float
    ready: bool
    ended: bool
    elapsed_ns: int
    cold_ns: int
    idle_ns: int
    busy_ns: int
    cold_nanousd: int
    idle_nanousd: int
    folded_steps: int
    method: str


@dataclass(frozen=True)
class ChargeRecord:
    """What one request has cost on one replica, as its engine counts. Absolute sums."""

    replica_id: str
    request_id: str
    tenant: str
    outcome: EngineOutcome
    nanousd: int
    tokens: Tokens
    updated_at: float


@dataclass(frozen=True)
class TotalRecord:
    """Sums over a replica's ended requests, per tenant and bucket: what counters are made of."""

    replica_id: str
    tenant: str
    bucket: Bucket
    nanousd: int
    requests: int
    tokens: Tokens


@dataclass(frozen=True)
class MeterReading:
    """One consistent reading of a replica's books, to be written in one transaction."""

    replica: ReplicaRecord
    charges: tuple[ChargeRecord, ...] = ()
    totals: tuple[TotalRecord, ...] = field(default_factory=tuple)
