"""What Ray Serve's configuration names as policies. Ray copies a policy's whole module by value into its controller, so
that two policies would not see the same globals; hence nothing stands here but the way to `scaling`, which is imported
there and shared.
"""

from __future__ import annotations

from typing import Any


class Model:
    """A model's policy: see `scaling.FollowLoad`."""

    def __init__(self, **told: Any) -> None:
        from serving.engines.scaling import FollowLoad

        self._policy = FollowLoad(**told)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many replicas there should be. `context`: Ray's AutoscalingContext."""
        return self._policy(context)


class Gateways:
    """The gateways' policy: see `scaling.Listen`."""

    def __init__(self) -> None:
        from serving.engines.scaling import Listen

        self._policy = Listen()

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """As many as there are to be. `context`: Ray's AutoscalingContext."""
        return self._policy(context)
