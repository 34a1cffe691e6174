"""An engine profile from what a live run saw, and whether the simulator then tells that run's medians.

The step model is the live one, as replicas learned it from their own steps. What it does not explain of a request
(gateway, HTTP, tokenising) is what the first half of the run's requests took beyond a simulation of them: a constant on
the time to first token and one on each further token. The second half, of which nothing was used, is what the profile
is held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.slos import Slo
from serving.simulator.planning import Fixed
from serving.simulator.profile import EngineProfile
from serving.simulator.simulate import simulate
from serving.simulator.traffic import traffic
from serving.simulator.world import Service

LIMIT = 0.15  # how far a median may be off
_ANY = Slo(ttft_ms=1e9, tpot_ms=1e9)


@dataclass(frozen=True)
class Seen:
    """Answered requests of one model, in order of time. sent: seconds. computed: prompt tokens that no cache had. ttft,
    tpot: seconds; NaN where a request has none (not streamed, one token)."""

    sent: np.ndarray
    computed: np.ndarray
    output: np.ndarray
    ttft: np.ndarray
    tpot: np.ndarray

    def part(self, chosen: np.ndarray) -> Seen:
        """Only these."""
        return Seen(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def halves(self) -> tuple[Seen, Seen]:
        """Before and after the middle of the time."""
        middle = (self.sent[0] + self.sent[-1]) / 2
        return self.part(self.sent < middle), self.part(self.sent >= middle)

    @property
    def medians(self) -> dict[str, float]:
        """ttft_ms, tpot_ms, and output tokens per second from the first request sent to the last answered."""
        ends = self.sent + np.nan_to_num(self.ttft) + np.nan_to_num(self.tpot) * np.maximum(self.output - 1, 0)
        return {"ttft_ms": float(np.nanmedian(self.ttft)) * 1e3, "tpot_ms": float(np.nanmedian(self.tpot)) * 1e3,
                "output_tokens_per_s": float(self.output.sum() / max(ends.max() - self.sent[0], 1e-9))}


def seen(records: list[Mapping[str, Any]]) -> Seen:
    """What raw records of a load test say; failed ones, warm-ups and embeddings are left out."""
    rows = []
    for r in records:
        if r["error"] is not None or r["warmup"] or r.get("api", "chat") != "chat" or not r["completion_tokens"]:
            continue
        first, last, count = r["first_content"], r["last_content"], r["completion_tokens"]
        streamed = r["stream"] and first is not None
        rows.append((r["sent"], max(1, (r["prompt_tokens"] or 1) - (r["cached_tokens"] or 0)), count,
                     first - r["sent"] if streamed else np.nan,
                     (last - first) / (count - 1) if streamed and count > 1 else np.nan))
    rows.sort()
    return Seen(*(np.array(column, float) for column in zip(*rows, strict=True))) if rows else Seen(
        *(np.zeros(0) for _ in range(5)))


def simulated(profile: EngineProfile, of: Seen, replicas: int) -> dict[str, float]:
    """The same medians, had these requests been sent to engines of that profile."""
    begin = of.sent[0]
    asked = traffic(of.sent - begin, of.computed.astype(np.int64), of.output.astype(np.int64),
                    float(of.sent[-1] - begin) + 1.0)
    variant = Variant("fitted", profile.steps, profile.kv_tokens, profile.max_num_seqs, profile.max_batched_tokens, 0,
                      replicas, replicas, 0.0)
    service = Service("fitted", Policy(Fixed(), (variant,), _ANY), (profile,), (profile.max_num_seqs * 2,), (1,),
                      (False,), max_wait_s=1e9)
    measures = simulate({"fitted": (service, asked)}, tick_s=0.25)["fitted"].measures
    ttft, tpot = measures.ttft.quantile(0.5) or 0.0, measures.tpot.quantile(0.5) or 0.0
    # when the last answer ended is not kept: each takes its median time
    ends = of.sent + ttft + tpot * np.maximum(of.output - 1, 0)
    return {"ttft_ms": ttft * 1e3, "tpot_ms": tpot * 1e3,
            "output_tokens_per_s": float(measures.output_tokens / max(ends.max() - begin, 1e-9))}


def calibrated(profile: EngineProfile, of: Seen, replicas: int) -> EngineProfile:
    """The profile with what its steps leave unexplained of these requests. Where steps alone would have taken longer
    than the tokens came, they are taken as that much shorter."""
    live = of.medians
    told = simulated(profile.model_copy(update={"request_s": 0.0, "token_wait_s": 0.0}), of, replicas)
    shorter = min(1.0, live["tpot_ms"] / told["tpot_ms"]) if told["tpot_ms"] else 1.0
    if shorter < 1.0:
        profile = profile.model_copy(update={name: getattr(profile, name) * shorter for name in (
            "fixed_s", "token_s", "attention_s", "cache_s")})
        told = simulated(profile, of, replicas)
    return profile.model_copy(update={"request_s": max(0.0, live["ttft_ms"] - told["ttft_ms"]) / 1e3,
                                      "token_wait_s": max(0.0, live["tpot_ms"] - told["tpot_ms"]) / 1e3})


@dataclass(frozen=True)
class Compared:
    """One figure of the half that nothing was fitted to."""

    live: float
    simulated: float

    @property
    def error(self) -> float:
        """Simulated over live, less 1."""
        return self.simulated / self.live - 1 if self.live else 0.0

    @property
    def within(self) -> bool:
        """Whether it is as near as it must be."""
        return abs(self.error) <= LIMIT


def validated(profile: EngineProfile, of: Seen, replicas: int) -> dict[str, Compared]:
    """The profile held against these requests."""
    live, told = of.medians, simulated(profile, of, replicas)
    return {name: Compared(live[name], told[name]) for name in live}
