"""The rows that the fleet leaves behind: what the ledger keeps and every report adds up.

Written by the gateway (`RequestRecord`), by each replica, and by whatever else costs money (`MeterReading`). A meter
always writes absolute sums, never increments, and numbers its readings, so that writing one twice, or an old one after
a newer one, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["finished", "failed", "aborted", "rejected"]
EngineOutcome = Literal["running", "finished", "failed", "aborted"]
Bucket = Literal["direct", "waste", "idle", "cold_start", "overhead"]
BUCKETS: tuple[Bucket, ...] = ("direct", "waste", "idle", "cold_start", "overhead")
TokenKind = Literal["prompt", "cached", "completion"]
TOKEN_KINDS: tuple[TokenKind, ...] = ("prompt", "cached", "completion")
SourceRole = Literal["replica", "gateway", "head", "storage"]
Phase = Literal["prefill", "decode", "recompute"]
Method = Literal["step-shapley-fit", "step-shapley-prior", "window"]
NOTHING: Mapping[str, int] = {}


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

    `caller_id`: the x-request-id that the caller sent. `adapter`: `model:adapter` where one was used. `preset`:
    `name@version` where one was asked for. `outcome`: finished (the caller got a whole answer), rejected
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
    adapter: str = ""
    preset: str = ""


@dataclass(frozen=True)
class Amounts:
    """Nano-USD of one request by bucket. `direct` and `waste` are its own work; `idle` and `cold_start` are its part of
    what the replica cost while it did no one's work, by the fleet file's policy."""

    direct: int = 0
    waste: int = 0
    idle: int = 0
    cold_start: int = 0

    @property
    def work(self) -> int:
        """What its own engine steps cost."""
        return self.direct + self.waste

    @property
    def loaded(self) -> int:
        """Everything that it is charged with: the fully loaded basis."""
        return self.direct + self.waste + self.idle + self.cold_start

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.direct + other.direct, self.waste + other.waste, self.idle + other.idle,
                       self.cold_start + other.cold_start)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(self.direct - other.direct, self.waste - other.waste, self.idle - other.idle,
                       self.cold_start - other.cold_start)


@dataclass(frozen=True)
class StepFit:
    """The affine step-time model of a replica: seconds per unit, and how well it has predicted.

    `steps`: engine steps it was fitted on. `error_ratio`: mean absolute error of predictions made before each step was
    seen, over the mean step time; None before there are enough.
    """

    fixed: float
    token: float
    attention: float
    cache: float
    steps: int = 0
    error_ratio: float | None = None


@dataclass(frozen=True)
class SourceRecord:
    """One thing that costs money by the hour, as its own meter tells: a model's replica, a gateway, the head node.

    Nanoseconds and nano-USD are absolute sums since it started. `variant`: accelerator profile and how many of its
    devices. `price_nanousd_per_hour`: what it costs now. `idle_tenant`: who is charged with its idle time; empty: no
    one. `fit`: the step model where it has one. `unmetered`: requests that ran while nothing could be written down.
    """

    source_id: str
    role: SourceRole
    model: str
    variant: str
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
    overhead_nanousd: int
    folded_steps: int
    method: Method
    idle_tenant: str = ""
    fit: StepFit | None = None
    unmetered: int = 0


@dataclass(frozen=True)
class IntervalRecord:
    """One hour of a source's time (or the part of it at one price): what it cost and what it was spent on.

    `starts_at`: Unix seconds. Only the interval under way grows. Sums over a source's intervals equal its record's.
    """

    source_id: str
    starts_at: float
    price_nanousd_per_hour: int
    elapsed_ns: int
    cold_ns: int
    idle_ns: int
    busy_ns: int
    cold_nanousd: int
    idle_nanousd: int
    busy_nanousd: int
    overhead_nanousd: int


@dataclass(frozen=True)
class Segment:
    """Consecutive engine steps that did the same kind of work for a request; what explains its cost.

    Sums over `steps`: tokens scheduled, `context` tokens already there, `pairs` of tokens that attend to each other,
    `shared` (requests in each step) and `parts` (one over that), the steps' time and what this request was charged.
    """

    phase: Phase
    steps: int
    tokens: int
    context: int
    pairs: float
    shared: int
    parts: float
    step_ns: int
    nanousd: int


@dataclass(frozen=True)
class ChargeRecord:
    """What one request has cost on one replica, as its engine counts. Absolute sums.

    `recomputed`: tokens computed again after a preemption; `rejected`: speculative tokens thrown away; both are waste.
    `compared`: nano-USD that the same tokens cost at each comparator of the model, by its name in the price book.
    """

    source_id: str
    request_id: str
    tenant: str
    outcome: EngineOutcome
    amounts: Amounts
    tokens: Tokens
    method: Method
    updated_at: float
    preemptions: int = 0
    recomputed: int = 0
    rejected: int = 0
    compared: Mapping[str, int] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class TotalRecord:
    """Sums over a replica's ended requests of one tenant: what counters are made of. `unfinished`: aborted or failed,
    part of `requests`."""

    source_id: str
    tenant: str
    amounts: Amounts
    requests: int
    unfinished: int
    tokens: Tokens
    compared: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MeterReading:
    """One consistent reading of a meter's books, to be written in one transaction. `number` rises by one each time."""

    number: int
    source: SourceRecord
    intervals: tuple[IntervalRecord, ...] = ()
    charges: tuple[ChargeRecord, ...] = ()
    totals: tuple[TotalRecord, ...] = ()
