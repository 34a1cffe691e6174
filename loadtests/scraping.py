"""Asks the fleet's metrics endpoints again and again while a run lasts, and writes what they say beside the records.

A thread of the process that leads the run, which has nothing else to do; never of one that stamps chunks. A scrape
that fails leaves a gap and no more: the load test goes on.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from loadtests.fleetseries import FleetSample, sample_of

_TIMEOUT_S = 5.0
#: So many samples at most in a run whose length is known; and no more often than this.
_SAMPLES, _LEAST_S, _MOST_S = 120, 1.0, 15.0


@dataclass(frozen=True)
class Watch:
    """What to ask. metrics: URL of the fleet's exporter. engines: URL that lists the engines' own metrics in
    Prometheus' HTTP service discovery form, with the label `model`; "" without."""

    metrics: str
    engines: str = ""


def interval_s(duration_s: float) -> float:
    """Seconds between scrapes of a run of this length."""
    return min(_MOST_S, max(_LEAST_S, duration_s / _SAMPLES))


class Scraper:
    """While active, samples go to `path`, one JSON line each."""

    def __init__(self, watch: Watch, path: Path, every_s: float) -> None:
        self._watch, self._path, self._every_s = watch, path, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        # Metrics are on this machine or in this cluster: whatever proxy the environment names is not asked.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.samples = self.failed = 0
        self.last_error = ""

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(timeout=2 * _TIMEOUT_S)

    def _run(self) -> None:
        with self._path.open("w", encoding="utf-8") as file, ThreadPoolExecutor(4) as pool:
            due = time.monotonic()
            while True:
                try:
                    file.write(self._sample(pool).model_dump_json(exclude_none=True) + "\n")
                    file.flush()
                    self.samples += 1
                except (OSError, ValueError) as error:
                    self.failed += 1
                    self.last_error = f"{type(error).__name__}: {error}"
                # One after the end too: what the run cost is the difference of two.
                if self._ended.is_set():
                    return
                due = max(due + self._every_s, time.monotonic())
                self._ended.wait(due - time.monotonic())

    def _sample(self, pool: ThreadPoolExecutor) -> FleetSample:
        at = time.time()
        fleet = self._get(self._watch.metrics)
        engines: list[tuple[str, str]] = []
        if self._watch.engines:
            listed = json.loads(self._get(self._watch.engines))
            where = [(entry["labels"].get("model", ""), host) for entry in listed for host in entry["targets"]]
            engines = [found for found in pool.map(self._engine, where) if found is not None]
        return sample_of(at, fleet, engines)

    def _engine(self, where: tuple[str, str]) -> tuple[str, str] | None:
        try:
            return where[0], self._get(f"http://{where[1]}/metrics")
        except OSError:
            # One that is just going is listed a little longer than it lives.
            return None

    def _get(self, url: str) -> str:
        with self._open(url, timeout=_TIMEOUT_S) as answer:
            return answer.read().decode("utf-8", "replace")
