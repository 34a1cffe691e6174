"""How late gevent's loop wakes a greenlet: the error that the load generator itself adds to every stamp."""

from __future__ import annotations

import time

import gevent

_EVERY_S = 0.02


class LagProbe:
    """Sleeps 20 ms again and again and keeps by how much each sleep overran, milliseconds."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []

    def run(self) -> None:
        while True:
            before = time.perf_counter()
            gevent.sleep(_EVERY_S)
            self.lags_ms.append(max(0.0, time.perf_counter() - before - _EVERY_S) * 1e3)
