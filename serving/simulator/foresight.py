"""What a policy could save at most, about: one that knows all requests beforehand, and when it needs whom.

It counts the replicas' worth of work that comes in each moment by the same capacity model as our rule, leaves out the
moments that the share of requests which may be late can be spent on, starts replicas a start's time ahead and keeps
those that would be started again before keeping them costs more; or it always has as many. That is no proof that nobody
could do with less: it is what is left to gain by knowing the future instead of guessing it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from serving.fleet.autoscaling.capacity import Mix, capacity
from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.slos import Slo
from serving.simulator.traffic import Traffic, whole

_BIN_S, _WINDOW = 10.0, 3  # of the counting; bins over which work is averaged
_NODE_IDLE_S = 60.0  # a replica that goes is paid for a while longer
FILLS, SHARES = (0.4, 0.55, 0.7, 0.85), (0.9, 1.0)


@dataclass(frozen=True)
class Foreseen:
    """A rule that follows a plan. how: it was made. plan: replicas by bins of time; after its end as in the last."""

    how: str
    plan: tuple[int, ...] = field(repr=False)

    name = "foreseen"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """See `deciding.Rule`. Knows one variant; further ones stay at their least. Time is the traffic's."""
        wanted = self.plan[min(len(self.plan) - 1, int(load.at_s / _BIN_S))]
        reason = "demand" if wanted > target[0] else "less_demand" if wanted < target[0] else "steady"
        return (wanted, *target[1:]), reason, own, None


def always(replicas: int) -> Foreseen:
    """The plan that never changes."""
    return Foreseen(f"always {replicas}", (replicas,))


def plans(traffic: Traffic, variant: Variant, slo: Slo) -> tuple[Foreseen, ...]:
    """Plans for a traffic, leaner and richer ones."""
    worth, count = work(traffic, variant, slo)
    return tuple(Foreseen(f"{fill:.0%} of capacity used, for {share:.0%} of the requests",
                          planned(worth, count, variant, fill, share)) for fill, share in product(FILLS, SHARES))


def work(traffic: Traffic, variant: Variant, slo: Slo) -> tuple[np.ndarray, np.ndarray]:
    """(replicas' worth of work, requests) by bins of time."""
    asked, bins = whole(traffic), max(1, math.ceil(traffic.length_s / _BIN_S))
    at = np.minimum((asked.at / _BIN_S).astype(int), bins - 1)
    prompt, output = asked.prompt.astype(float), asked.output.astype(float)
    count, prompts, squares, outputs = (np.convolve(np.bincount(at, of, bins), np.ones(_WINDOW), "same")
                                        for of in (np.ones(len(at)), prompt, prompt * prompt, output))
    worth = np.zeros(bins)
    for i in np.nonzero(count > 0.5)[0]:
        n, mean = count[i], prompts[i] / count[i]
        one = capacity(variant, Mix(mean, mean, squares[i] / n, max(1.0, outputs[i] / n)), slo).per_s
        worth[i] = n / (_WINDOW * _BIN_S) / max(one, 1e-9)
    return worth, np.bincount(at, minlength=bins)


def planned(worth: np.ndarray, count: np.ndarray, variant: Variant, fill: float, share: float) -> tuple[int, ...]:
    """Replicas that there should be from each bin on, those that are still to start among them."""
    order = np.argsort(worth, kind="stable")
    passed = np.cumsum(count[order])
    most = worth[order][np.searchsorted(passed, share * passed[-1] - 1e-9)]
    wanted = np.ceil(np.minimum(worth, most) / fill - 1e-9).astype(int).clip(max(1, variant.least), variant.most)
    start_s = variant.start_s + variant.node_s
    gap, ahead = math.ceil((start_s + _NODE_IDLE_S) / _BIN_S), math.ceil(start_s / _BIN_S)
    kept = _after(np.pad(wanted, (gap, gap), mode="edge"), gap, np.max)  # gaps that cost more than they save are closed
    kept = _after(kept, gap, np.min)[:len(wanted)]
    early = _after(np.pad(np.maximum(kept, wanted), (0, ahead), mode="edge"), ahead, np.max)
    return tuple(early.tolist())


def _after(values: np.ndarray, bins: int, of: Any) -> np.ndarray:
    """The most or least of each value and so many that follow; as many fewer values."""
    return of(np.lib.stride_tricks.sliding_window_view(values, bins + 1), axis=1)
