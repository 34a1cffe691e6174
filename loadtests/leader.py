"""The one who leads a run: gives orders to the workers, starts them together, collects what they saw, and ends it.

Talks to workers by messages only. Raw records go to disk as they come; counts are merged for the progress and the stop
conditions. It measures nothing itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.event import Event

from loadtests.records import RecordWriter
from loadtests.scenario import Scenario
from loadtests.sketch import Sketch, merged
from loadtests.stopping import reason_to_stop
from loadtests.users import RunClock

_LOG = logging.getLogger(__name__)
_PROGRESS_EVERY_S = 0.5
_READY_WITHIN_S = 120.0
_LAST_WORDS_WITHIN_S = 8.0
_PINGS = 8
#: Between the last order and the first second of the run; a message has to get there.
_LEAD_S = 0.3


class Post(Protocol):
    """Sends a message of a kind to one worker."""

    def __call__(self, kind: str, data: dict[str, Any], worker: str) -> None: ...


@dataclass(frozen=True)
class Orders:
    """What is to be done, the same for all workers."""

    scenario: Scenario
    base_url: str
    beside: Path
    records: Path
    salt: int = 0
    only: str | None = None


class Leader:
    """One run, seen from where it is led."""

    def __init__(
        self, orders: Orders, workers: Sequence[str], post: Post, say: Callable[[dict[str, Any]], None],
        missing: Callable[[str], bool], on_records: Callable[[Sequence[str]], None],
    ) -> None:
        self._orders, self._post, self._say, self._missing = orders, post, say, missing
        self._on_records = on_records
        self._workers = tuple(workers)
        self._writer = RecordWriter(orders.records)
        self._clock: RunClock | None = None
        self._batches: dict[str, dict[str, Any]] = {}
        self._ready: dict[str, int] = {}
        self._finals: set[str] = set()
        self._pongs: dict[str, list[tuple[float, float]]] = {worker: [] for worker in workers}
        self._lost: list[str] = []
        self._stopped_by: str | None = None
        self._all_ready, self._over = Event(), Event()
        self._aborted = self._finished = False

    @property
    def over(self) -> bool:
        return self._finished

    def run(self) -> None:
        """Lead from the first order to the last word; returns when every worker is done or lost."""
        for number, worker in enumerate(self._workers):
            self._post("flotilla_orders", self._orders_for(number), worker)
        self._all_ready.wait(_READY_WITHIN_S)
        if not self._finals and not self._aborted:
            if slow := [worker for worker in self._workers if worker not in self._ready]:
                self._lost.append(f"{len(slow)} of {len(self._workers)} workers did not get ready: {', '.join(slow)}")
                self.abort()
            else:
                offsets = self._measure_clocks()
                at_unix = time.time() + _LEAD_S
                self._clock = RunClock(at_unix)
                for worker in self._workers:
                    self._post("flotilla_go", {"at_unix": at_unix, "offset_s": offsets[worker][0]}, worker)
        while not self._over.wait(_PROGRESS_EVERY_S):
            self._look()
        self._finish()

    def abort(self) -> None:
        """Have the workers stop, and wait for their last batches for a while. Safe to call twice."""
        if not self._aborted and not self._finished:
            self._aborted = True
            self._all_ready.set()
            for worker in self._workers:
                self._post("flotilla_stop", {}, worker)
        if not self._over.wait(_LAST_WORDS_WITHIN_S):
            silent = sorted(set(self._workers) - self._finals)
            self._lost += [f"{self._name(worker)} did not answer when the run was stopped" for worker in silent]
            self._over.set()
        self._finish()

    def on_ready(self, worker: str, data: Mapping[str, Any]) -> None:
        if data.get("failure"):
            self._lost.append(f"{self._name(worker)} failed: {data['failure']}")
            self._final(worker)
        self._ready[worker] = int(data.get("scheduled", 0))
        if len(self._ready) == len(self._workers):
            self._all_ready.set()

    def on_pong(self, worker: str, data: Mapping[str, Any]) -> None:
        now = time.time()
        trip = now - data["here"]
        self._pongs[worker].append((trip, data["there"] - (data["here"] + now) / 2))

    def on_batch(self, worker: str, data: dict[str, Any]) -> None:
        if self._finished or worker not in self._workers:
            return
        for line in data["records"]:
            self._writer.write_line(line)
        self._on_records(data["records"])
        self._batches[worker] = data | {"records": ()}
        if data["final"]:
            if data["failure"]:
                self._lost.append(f"{self._name(worker)} failed: {data['failure']}")
            self._final(worker)

    def _orders_for(self, number: int) -> dict[str, Any]:
        orders = self._orders
        return {
            "scenario": orders.scenario.model_dump_json(), "beside": str(orders.beside), "base_url": orders.base_url,
            "salt": orders.salt, "only": orders.only, "worker": number, "workers": len(self._workers),
        }

    def _measure_clocks(self) -> dict[str, tuple[float, float]]:
        """Each worker's clock minus ours and the error of that, seconds: from the ping with the shortest round trip,
        whose half bounds the error (as NTP does it, RFC 5905)."""
        for worker in self._workers:
            self._pongs[worker].clear()
            for _ in range(_PINGS):
                self._post("flotilla_ping", {"here": time.time()}, worker)
                gevent.sleep(0.005)
        deadline = time.monotonic() + 2
        while any(len(pongs) < _PINGS for pongs in self._pongs.values()) and time.monotonic() < deadline:
            gevent.sleep(0.01)
        best = {worker: min(pongs, default=(2.0, 0.0)) for worker, pongs in self._pongs.items()}
        return {worker: (offset, trip / 2) for worker, (trip, offset) in best.items()}

    def _look(self) -> None:
        for worker in self._workers:
            if worker not in self._finals and self._missing(worker):
                self._lost.append(f"{self._name(worker)} died; its records since its last batch are missing")
                self._final(worker)
        self._report(final=False)
        counts = self._counts()
        if self._stopped_by is None and not self._aborted:
            self._stopped_by = reason_to_stop(
                self._orders.scenario.stop, sent=counts["sent"], done=counts["done"], errors=counts["errors"]
            )
            if self._stopped_by is not None:
                _LOG.warning("stopped: %s", self._stopped_by)
                self.abort()

    def _final(self, worker: str) -> None:
        self._finals.add(worker)
        if len(self._finals) == len(self._workers):
            self._all_ready.set()
            self._over.set()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._writer.close()
        self._report(final=True)

    def _report(self, final: bool) -> None:
        counts = self._counts()
        complete = bool(self._batches) and len(self._finals) == len(self._workers)
        complete = complete and all(batch["complete"] for batch in self._batches.values()) and not self._lost
        state = {
            "final": final,
            "complete": complete,
            "elapsed_s": max(0.0, self._clock.now()) if self._clock else 0.0,
            "started_unix": self._clock.started_unix if self._clock else time.time(),
            "scheduled": sum(self._ready.values()),
            **{name: counts[name] for name in ("arrivals", "sent", "done", "errors")},
            "last_ended_s": max((b["counts"].get("last_ended", 0.0) for b in self._batches.values()), default=0.0),
            "last_arrival_sent_s": max(
                (b["counts"].get("last_arrival_sent", 0.0) for b in self._batches.values()), default=0.0
            ),
            "loop_lag_ms": merged(Sketch.unpacked(b["lag"]) for b in self._batches.values()).quantiles(),
            "stopped_by": self._stopped_by,
            "lost": self._lost,
        }
        if final:
            state["workers"] = self._facts()
        self._say(state)

    def _facts(self) -> list[dict[str, Any]]:
        """What each worker was; clocks are measured again, so that one that drifted during the run shows."""
        reachable = not self._aborted and len(self._workers) > 1 and not self._lost
        before = {worker: min(pongs, default=(0.0, 0.0)) for worker, pongs in self._pongs.items()}
        after = self._measure_clocks() if reachable else {}
        facts = []
        for worker in self._workers:
            if worker in self._batches:
                # The first offset is in every stamp already; what is left is its change.
                offset, error = after.get(worker, (before[worker][1], before[worker][0] / 2))
                left = {"clock_offset_ms": (offset - before[worker][1]) * 1e3, "clock_error_ms": error * 1e3}
                facts.append(self._batches[worker]["facts"] | left)
        return facts

    def _counts(self) -> dict[str, int]:
        names = ("arrivals", "sent", "done", "errors")
        return {name: sum(b["counts"].get(name, 0) for b in self._batches.values()) for name in names}

    def _name(self, worker: str) -> str:
        return f"worker {self._workers.index(worker)} ({worker})" if len(self._workers) > 1 else "the worker"
