"""Without our policy: when a model whose smallest number of replicas is zero goes back to zero.

Requests reach replicas past Ray Serve, so its own policy would see none and stop a replica at work. This one asks the
replicas themselves: each tells for how long it has been idle. It runs in Ray's controller, so it must stay light and
import nothing of vLLM. It never starts a second replica.
"""

from __future__ import annotations

from typing import Any

IDLE = "flotilla_idle_s"  # what a replica reports: seconds since it last had work, 0 while it has some
IDLE_LIMIT_S = 300.0


class WhileUsed:
    """A policy of Ray Serve: one replica as long as any has been used within `idle_limit_s` seconds, else none."""

    def __init__(self, idle_limit_s: float = IDLE_LIMIT_S) -> None:
        self._limit_s = idle_limit_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many replicas there should be, and nothing to remember. `context`: Ray's AutoscalingContext."""
        if context.total_num_requests > 0:  # someone waits for it to wake
            return max(1, context.target_num_replicas), {}
        if context.current_num_replicas == 0:
            return context.target_num_replicas, {}
        told = context.raw_metrics.get(IDLE, {})
        idle = [series[-1].value for replica in context.running_replicas if (series := told.get(replica))]
        if len(idle) < len(context.running_replicas) or min(idle) < self._limit_s:  # one that has not told yet is new
            return max(1, context.target_num_replicas), {}
        return 0, {}


def from_zero(most: int, idle_limit_s: float = IDLE_LIMIT_S) -> dict[str, Any]:
    """Ray Serve's autoscaling configuration of a model with zero to `most` replicas."""
    policy = {"policy_function": f"{__name__}:{WhileUsed.__name__}", "policy_kwargs": {"idle_limit_s": idle_limit_s}}
    return {"min_replicas": 0, "max_replicas": most, "upscale_delay_s": 0, "downscale_delay_s": 0, "policy": policy}
