"""What a decision is made of: what was measured, what a replica can do, and the decision itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.fleet.stepmodel import StepModel


@dataclass(frozen=True, slots=True)
class Sums:
    """Of requests that have been answered since the model was first served; differences of two say what they are like.

    computed: prompt tokens that no prefix cache had, computed_squared: their squares. prompt: all prompt tokens.
    """

    finished: int = 0
    prompt: float = 0.0
    computed: float = 0.0
    computed_squared: float = 0.0
    output: float = 0.0

    @classmethod
    def of(cls, prompt: int, cached: int, output: int) -> Sums:
        """Of one request."""
        computed = prompt - cached
        return cls(1, prompt, computed, computed**2, output)

    def __add__(self, more: Sums) -> Sums:
        return Sums(self.finished + more.finished, self.prompt + more.prompt, self.computed + more.computed,
                    self.computed_squared + more.computed_squared, self.output + more.output)

    def __sub__(self, before: Sums) -> Sums:
        return Sums(self.finished - before.finished, self.prompt - before.prompt, self.computed - before.computed,
                    self.computed_squared - before.computed_squared, self.output - before.output)


@dataclass(frozen=True, slots=True)
class Load:
    """One model, measured at `at_s` (seconds, the clock of `now`).

    arrived: requests, ever. queued: in gateways, waiting: in engines, running: in batches. queued_tokens: prompt tokens
    of all that wait. ready, starting: replicas by variant; those that drain are in neither. busy: share of the ready
    replicas' time that engine steps took of late. cache: share of KV blocks in use. late: share of requests answered
    of late that missed a promise; None: none was answered.
    """

    at_s: float
    arrived: int
    queued: int
    waiting: int
    running: int
    queued_tokens: int
    ready: tuple[int, ...]
    starting: tuple[int, ...]
    sums: Sums = Sums()
    busy: float = 0.0
    cache: float = 0.0
    late: float | None = None

    @property
    def ongoing(self) -> int:
        """Requests that are not answered yet."""
        return self.queued + self.waiting + self.running


@dataclass(frozen=True)
class Variant:
    """One kind of replica of the model. steps: its step model, seconds. kv_tokens: tokens whose keys and values fit.

    start_s: from a replica's start until it takes requests, as measured; node_s: before that, where a node must come.
    price: nano-USD per replica and hour.
    """

    name: str
    steps: StepModel
    kv_tokens: int
    seats: int
    batched_tokens: int
    price: int
    least: int
    most: int
    start_s: float
    node_s: float = 0.0


@dataclass(frozen=True)
class Decision:
    """How many replicas of each variant there should be, why, and what to hand in next time.

    reason: one word of `REASONS`. needed: replicas' worth of work that the rule saw, where it sees that.
    """

    replicas: tuple[int, ...]
    reason: str
    state: State
    needed: float | None = None

    @property
    def total(self) -> int:
        """Replicas of all variants."""
        return sum(self.replicas)


@dataclass(frozen=True)
class State:
    """What decisions remember. target: the last one; own: what the rule itself keeps, opaque to everyone else."""

    target: tuple[int, ...]
    own: Any = None
    used_at_s: float | None = None
    arrived: int | None = None  # requests by then


#: Every reason that a decision may have, and what it means: labels of metrics, words of logs.
REASONS = {
    "steady": "as many as before",
    "demand": "more work is expected than the replicas can take within the promises",
    "backlog": "what waits would not be answered in time",
    "less_demand": "fewer are enough, and have been for as long as a start takes",
    "wake": "someone asks for a model without replicas",
    "to_zero": "no one has asked for the model for a while",
    "minimum": "the least that the fleet file allows",
    "maximum": "the most that the fleet file allows",
    "schedule": "the least at this time of the week",
    "spare": "replicas kept warm beyond what is needed",
    "cost_cap": "more would cost more per hour than is allowed",
    "stale": "what replicas and gateways tell is missing or old; nothing changes",
    "reclaimed": "replicas on reclaimed machines are replaced elsewhere",
}
