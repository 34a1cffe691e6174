"""One worker of a load test: takes its slice of the schedule, lets it happen, and hands on what it saw.

It is told everything by messages (the scenario, when to start, when to stop) and answers by batches of raw records and
counts, whether the one who asks is in the same process, on the same machine or elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent

from loadtests.arrivals import schedule, slice_of
from loadtests.client import ChatClient
from loadtests.endpoint import KEY_VARIABLE, Endpoint
from loadtests.looplag import LagProbe
from loadtests.observation import Observation
from loadtests.records import Record
from loadtests.scenario import scenario_from
from loadtests.users import Dispatcher, RunClock, Share
from loadtests.workloads import Prompts

_BATCH_EVERY_S = 0.25

#: Sends a batch to whoever leads.
Send = Callable[[dict[str, Any]], None]
#: Called with each record; Locust's own statistics live from it.
Tell = Callable[[Record, Observation], None]


class Worker:
    """One run of one worker, from its orders to its last batch."""

    def __init__(self, orders: dict[str, Any], send: Send, tell: Tell) -> None:
        scenario = scenario_from(json.loads(orders["scenario"]))
        self._share = Share(orders["worker"], orders["workers"], orders["only"])
        every = schedule(scenario, Path(orders["beside"]))
        mine = slice_of(every, self._share.worker, self._share.workers)
        self._arrivals = tuple(a for a in mine if self._share.only in (None, a.model))
        self._scenario, self._prompts = scenario, Prompts(scenario, orders["salt"])
        self._endpoint = Endpoint.parse(orders["base_url"], os.environ.get(KEY_VARIABLE))
        self._send, self._tell = send, tell
        self._lag = LagProbe()
        self._lines: list[str] = []
        self._dispatcher: Dispatcher | None = None
        self._finished = self._complete = self._closed = False
        self._failure: str | None = None

    @property
    def scheduled(self) -> int:
        """Arrivals of the open loop that this worker has before it."""
        return len(self._arrivals)

    def go(self, at_unix: float, offset_s: float) -> None:
        """Let the slice happen from a moment of the leader's unix time on; returns when the last answer is complete."""
        clock = RunClock(at_unix, offset_s)
        client = ChatClient(self._endpoint, self._scenario.request_timeout_s, clock.now, self._lag)
        self._dispatcher = Dispatcher(self._scenario, self._prompts, client, clock, self._on_record, self._share)
        clock.sleep_until(0.0)
        background = [gevent.spawn(self._hand_on), gevent.spawn(self._lag.run)]
        try:
            if not self._closed:
                self._dispatcher.run(self._arrivals)
                self._complete = not self._closed
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            gevent.killall(background)
            client.close()
            self._last_word()

    def stop(self) -> None:
        """End what is in flight; the last batch follows. Safe at any time and twice."""
        self._closed = True
        if self._dispatcher is None:
            self._last_word()
        elif not self._finished:
            self._dispatcher.stop()
            self._last_word()

    def _on_record(self, record: Record, seen: Observation) -> None:
        self._lines.append(record.model_dump_json())
        self._tell(record, seen)

    def _hand_on(self) -> None:
        while True:
            gevent.sleep(_BATCH_EVERY_S)
            self._send(self._batch(final=False))

    def _last_word(self) -> None:
        if not self._finished:
            self._finished = True
            self._send(self._batch(final=True))

    def _batch(self, final: bool) -> dict[str, Any]:
        lines, self._lines = self._lines, []
        counts = asdict(self._dispatcher.counts) if self._dispatcher else {}
        return {
            "final": final,
            "complete": self._complete,
            "failure": self._failure,
            "scheduled": self.scheduled,
            "records": lines,
            "lag": self._lag.lags_ms.packed(),
            "counts": counts,
            "facts": {
                "index": self._share.worker,
                "host": socket.gethostname(),
                "requests": counts.get("done", 0),
                "chunks": counts.get("chunks", 0),
                "cpu_share": self._lag.cpu_share,
                "chunks_per_s": self._lag.chunks_per_s,
                "memory_early_mib": round(self._lag.memory_early_mib, 1),
                "memory_mib": round(self._lag.memory_mib, 1),
            },
        }


def pong(ping: dict[str, Any]) -> dict[str, Any]:
    """The answer to a leader who measures this machine's clock."""
    return ping | {"there": time.time()}
