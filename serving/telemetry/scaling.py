"""How Ray Serve's controller counts for Prometheus what was decided about replicas.

May not happen in here: anything that could make a decision fail.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from serving.telemetry.metrics import GatewayMetrics

log = logging.getLogger("flotilla.scaling")
_MADE: dict[str, GatewayMetrics] = {}  # one per folder: the files of a process must not be opened twice


class ScalingMeter:
    """Counts decisions. `counters`: the folder that gateways count into as well; empty: in this process alone."""

    def __init__(self, counters: str = "") -> None:
        self._metrics = _metrics(counters) if counters else GatewayMetrics(source="controller")

    def decided(self, model: str, reason: str, target: int) -> None:
        """A model is to have so many replicas."""
        if self._metrics is not None:
            self._metrics["flotilla_autoscale_decisions_total"].labels(model, reason).inc()
            self._metrics["flotilla_autoscale_target_replicas"].labels(model).set(target)  # type: ignore[union-attr]


def _metrics(counters: str) -> GatewayMetrics | None:
    """Those that write into a folder; None where it cannot be written."""
    if counters not in _MADE:
        try:
            Path(counters).mkdir(parents=True, exist_ok=True)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
            _MADE[counters] = GatewayMetrics(source="controller")
        except OSError as error:
            log.warning("decisions about replicas are not counted: %s cannot be written (%s)", counters, error)
            return None
    return _MADE[counters]
