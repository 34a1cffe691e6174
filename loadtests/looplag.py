"""How late gevent's loop wakes a greenlet, and how busy its process is: what the generator adds to every stamp."""

from __future__ import annotations

import time

import gevent
import psutil

from loadtests.sketch import Sketch

_EVERY_S = 0.02
_BUSY_EVERY_S = 1.0
_EARLY_S = 30.0


class LagProbe:
    """Sleeps 20 ms again and again; keeps by how much each sleep overran (milliseconds), the process's busiest second
    as a share of one core, how many chunks that second had, and its resident memory now and after the first 30 s.
    """

    def __init__(self) -> None:
        self.lags_ms = Sketch()
        self.cpu_share = 0.0
        self.chunks_per_s = 0.0
        self.memory_early_mib = self.memory_mib = 0.0
        self.chunks = 0
        """Counted up by whoever reads streams."""

    def run(self) -> None:
        since, cpu, chunks = time.perf_counter(), time.process_time(), self.chunks
        began, own = since, psutil.Process()
        while True:
            before = time.perf_counter()
            gevent.sleep(_EVERY_S)
            now = time.perf_counter()
            self.lags_ms.add(max(0.0, now - before - _EVERY_S) * 1e3)
            if now - since >= _BUSY_EVERY_S:
                used = time.process_time()
                self.cpu_share = max(self.cpu_share, (used - cpu) / (now - since))
                self.chunks_per_s = max(self.chunks_per_s, (self.chunks - chunks) / (now - since))
                since, cpu, chunks = now, used, self.chunks
                self.memory_mib = own.memory_info().rss / 2**20
                # After the first connections, buffers and texts are there; what grows from then on grows for ever.
                if now - began <= _EARLY_S or not self.memory_early_mib:
                    self.memory_early_mib = self.memory_mib
