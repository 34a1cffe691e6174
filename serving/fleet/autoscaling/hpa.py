"""What the Kubernetes autoscaler does with utilisation: replicas times measured over wanted share, with a tolerance.

The share is of the time that engines are in a step, which is what GPU utilisation shows; it says little about load
(FIELD: 69% at a tenth of the throughput of 72%), and that is the point of the comparison. Or of KV blocks in use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from serving.fleet.autoscaling.queue import stabilised
from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.slos import Slo


@dataclass(frozen=True)
class Hpa:
    """target: share that is wanted, of `metric`. tolerance: as Kubernetes' default."""

    target: float = 0.7
    metric: Literal["busy", "cache"] = "busy"
    stabilization_s: float = 300.0
    tolerance: float = 0.1

    name = "hpa"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """See `deciding.Rule`. Knows one variant; further ones stay at their least."""
        if target[0] == 0:
            up = 1 if load.ongoing else 0
            return (up, *target[1:]), "wake" if up else "steady", own, None
        ready = load.ready[0]
        if ready == 0:
            return target, "steady", own, None
        ratio = (load.busy if self.metric == "busy" else load.cache) / self.target
        needed = ready * ratio
        if load.starting[0] and ratio > 1:  # replicas that are not ready count as unused when scaling up
            needed = max(ready * ratio * ready / (ready + load.starting[0]), float(target[0]))
        wanted = target[0] if abs(ratio - 1) <= self.tolerance else math.ceil(needed - 1e-9)
        return stabilised(wanted, needed, target, variants, own, now, self.stabilization_s)
