"""What KEDA does with a queue's length: waiting requests over a target per replica, by Kubernetes' autoscaler's rules.

Upscales at once; a downscale goes to the most that was wanted within the stabilisation window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.slos import Slo


@dataclass(frozen=True)
class Queue:
    """target_waiting: requests that may wait per replica. running_counts: whether those that run count as well, as when
    KEDA is pointed at waiting plus running."""

    target_waiting: float = 5.0
    stabilization_s: float = 300.0
    running_counts: bool = False

    name = "queue"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """See `deciding.Rule`. Knows one variant; further ones stay at their least."""
        length = load.ongoing if self.running_counts else load.queued + load.waiting
        needed = length / self.target_waiting
        return stabilised(math.ceil(needed - 1e-9), needed, target, variants, own, now, self.stabilization_s)


def stabilised(wanted: int, needed: float, target: tuple[int, ...], variants: tuple[Variant, ...], own: Any, now: float,
               window_s: float) -> tuple[tuple[int, ...], str, Any, float | None]:
    """Up at once, down to the most that was wanted within the window, at whose beginning counts what there was."""
    wanted = min(max(wanted, variants[0].least), variants[0].most)
    before = ((now, target[0]),) if own is None else own
    wants = (*((t, n) for t, n in before if t > now - window_s), (now, wanted))
    most = max(n for _, n in wants)
    found = wanted if wanted >= target[0] else min(target[0], most)
    reason = "demand" if found > target[0] else "less_demand" if found < target[0] else "steady"
    return (found, *target[1:]), reason, wants, needed
