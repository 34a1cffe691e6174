"""What Ray Serve does by default: requests that are not answered yet, averaged, over a target per replica, with delays.

As documented for Ray 2.60: an upscale or downscale must have been wanted all the time for its delay; from zero it is
immediate; the step is multiplied by a factor; scaling down stops at one before zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.slos import Slo


@dataclass(frozen=True)
class RayDefault:
    """Names and defaults are Ray Serve's."""

    target_ongoing_requests: float = 2.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    look_back_period_s: float = 30.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0

    name = "ray-default"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """See `deciding.Rule`. Knows one variant; further ones stay at their least."""
        samples, since, way = own or ((), None, 0)
        samples = (*((t, n) for t, n in samples if t > now - self.look_back_period_s), (now, load.ongoing))
        mean = sum(n for _, n in samples) / len(samples)
        now_n, running = target[0], load.ready[0] + load.starting[0]
        if now_n == 0:
            up = 1 if load.ongoing else 0
            return (up, *target[1:]), "wake" if up else "steady", (samples, None, 0), None
        needed = mean / self.target_ongoing_requests
        # Ray compares with the replicas that run; those that start count as wanted already
        wanted = self._stepped(needed, max(running, now_n))
        wanted = min(max(wanted, variants[0].least), variants[0].most)
        turn = (wanted > now_n) - (wanted < now_n)
        if turn == 0:
            return target, "steady", (samples, None, 0), needed
        if turn != way or since is None:
            since = now
        delay = self.upscale_delay_s if turn > 0 else self.downscale_delay_s
        if now - since + 1e-6 < delay:
            return target, "steady", (samples, since, turn), needed
        if turn < 0 and now_n > 1:
            wanted = max(1, wanted)
        return (wanted, *target[1:]), "demand" if turn > 0 else "less_demand", (samples, None, 0), needed

    def _stepped(self, needed: float, current: int) -> int:
        factor = self.upscaling_factor if needed > current else self.downscaling_factor
        stepped = math.ceil(current + factor * (needed - current) - 1e-9)
        return stepped - 1 if math.ceil(needed - 1e-9) < current == stepped else stepped
