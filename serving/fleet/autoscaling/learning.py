"""What is done until a model's step model is known: seats decide.

A replica's step model is fitted after a hundred-odd steps of its own. Until any replica of the model has had that many,
all that is known is how many requests an engine runs at once. Remembers what `slo` remembers, so that ours goes on from
there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from serving.fleet.autoscaling.signals import Load, Variant
from serving.fleet.autoscaling.slo import SloRule, _Seen
from serving.fleet.slos import Slo


@dataclass(frozen=True)
class Learning(SloRule):
    """As many replicas as have seats for all that is asked at once; one variant only."""

    name = "learning"

    def want(self, load: Load, variants: tuple[Variant, ...], slo: Slo, target: tuple[int, ...], own: Any,
             now: float) -> tuple[tuple[int, ...], str, Any, float | None]:
        """(replicas, reason, what to remember, replicas' worth of requests)."""
        seen: _Seen = (own or _Seen(since_s=now)).with_(load, self.mix_s + 2 * self.window_s)
        first = variants[0]
        worth = load.ongoing / (first.seats * self.fill)
        wanted = (min(first.most, max(first.least, math.ceil(worth))),)
        keep = max(self.window_s, self.hold * (first.start_s + first.node_s))
        seen = seen.wanting(now, wanted, keep)
        if wanted[0] > target[0]:
            return wanted, "demand", seen, worth
        held = seen.held(target, now, keep)
        return held, ("less_demand" if held != target else "steady"), seen, worth
