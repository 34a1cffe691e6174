"""What replicas and gateways tell whoever decides: flat numbers, because Ray Serve carries nothing else.

A replica tells a `ReplicaTold` every other second, a gateway one `GatewayTold` for each model. Numbers of "ever" count
from the start of the process that tells. What a replica does not know is -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from serving.fleet.autoscaling.signals import Sums
from serving.fleet.stepmodel import StepModel

UNKNOWN = -1.0
_REPLICA = "flotilla_"


@dataclass(frozen=True, slots=True)
class ReplicaTold:
    """One replica.

    running: requests in its batch, waiting: those that are not in it yet, waiting_tokens: prompt tokens that are still
    to be computed. cache: share of KV blocks in use. busy_s: of engine steps, ever. finished … output: `Sums`, ever.
    start_s: from its process's start until it took requests. kv_tokens, batched_tokens: its engine's limits. price:
    nano-USD per hour. fixed … cache_s: its fitted step model, seconds. ttft_s, tpot_s: means of the last half minute,
    as its engine measures them; tokens_per_s: output tokens over the same time.
    """

    running: float = 0.0
    waiting: float = 0.0
    waiting_tokens: float = 0.0
    cache: float = 0.0
    busy_s: float = 0.0
    finished: float = 0.0
    prompt: float = 0.0
    computed: float = 0.0
    computed_squared: float = 0.0
    output: float = 0.0
    start_s: float = UNKNOWN
    kv_tokens: float = UNKNOWN
    batched_tokens: float = UNKNOWN
    price: float = UNKNOWN
    fixed: float = UNKNOWN
    token: float = UNKNOWN
    attention: float = UNKNOWN
    cache_s: float = UNKNOWN
    ttft_s: float = UNKNOWN
    tpot_s: float = UNKNOWN
    tokens_per_s: float = 0.0

    def numbers(self) -> dict[str, float]:
        """As Ray Serve carries it."""
        return {_REPLICA + name: float(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> ReplicaTold | None:
        """What `numbers` made; None where a part is missing: half a message is none."""
        try:
            return cls(**{f.name: numbers[_REPLICA + f.name] for f in fields(cls)})
        except KeyError:
            return None

    @property
    def sums(self) -> Sums:
        """Of requests answered ever."""
        return Sums(int(self.finished), self.prompt, self.computed, self.computed_squared, self.output)

    @property
    def steps(self) -> StepModel | None:
        """Its step model; None while there is no fit."""
        return None if self.fixed < 0 else StepModel(self.fixed, self.token, self.attention, self.cache_s)


@dataclass(frozen=True, slots=True)
class GatewayTold:
    """One model at one gateway.

    arrived: requests, ever. queued: those that wait for a seat or for a first replica. queued_tokens: tokens of their
    prompts, estimated from their bytes. promised, missed: answers ever that a promise was made for, and those of them
    that did not keep all. How many tokens callers allow to be made is not told: it bounds an answer, and says nothing
    of how long it gets, which `ReplicaTold.output` does.
    """

    arrived: float = 0.0
    queued: float = 0.0
    queued_tokens: float = 0.0
    promised: float = 0.0
    missed: float = 0.0

    def numbers(self, model: str) -> dict[str, float]:
        """As Ray Serve carries it."""
        return {f"{name}:{model}": float(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, numbers: Mapping[str, float], model: str) -> GatewayTold | None:
        """What `numbers` made for a model; None where a part is missing."""
        try:
            return cls(**{f.name: numbers[f"{f.name}:{model}"] for f in fields(cls)})
        except KeyError:
            return None
