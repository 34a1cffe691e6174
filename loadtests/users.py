"""Users at work: every arrival of the schedule becomes a greenlet that sends its turns and writes its
records.

An arrival never waits for another one. The first turn leaves at its scheduled time; a later turn follows the
reply by its think time and begins only while the run lasts.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent
from gevent.pool import Group

from loadtests.arrivals import Arrival, Turn
from loadtests.client import ChatClient, Observation
from loadtests.records import Record
from loadtests.scenario import Scenario
from loadtests.workloads import Message, body_of, reply_message, system_prompt, user_message

#: Sent, then the record's observation once it is complete.
OnRecord = Callable[[Record, Observation], None]


class RunClock:
    """Seconds since the start of the run on a monotonic clock, and that start as unix time."""

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self.started_unix = time.time()

    def now(self) -> float:
        return time.perf_counter() - self._origin

    def sleep_until(self, due: float) -> None:
        # gevent may wake a timer early, because it counts from its loop's cached time.
        while (wait := due - self.now()) > 0:
            gevent.sleep(wait)


@dataclass(slots=True)
class Counts:
    """What the run has done so far."""

    arrivals: int = 0
    sent: int = 0
    done: int = 0
    errors: int = 0
    last_ended: float = 0.0
    last_arrival_sent: float = 0.0


class Dispatcher:
    """Lets a schedule happen."""

    def __init__(self, scenario: Scenario, client: ChatClient, clock: RunClock, on_record: OnRecord) -> None:
        self.counts = Counts()
        self._scenario = scenario
        self._client = client
        self._clock = clock
        self._on_record = on_record
        self._greenlets = Group()

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """Send everything; returns when the last answer is complete."""
        for arrival in arrivals:
            self._clock.sleep_until(arrival.at_s)
            self._greenlets.start(gevent.Greenlet(self._live, arrival))
        self._greenlets.join()

    def stop(self) -> None:
        """End all requests in flight; each still writes its record."""
        self._greenlets.kill()

    def _live(self, arrival: Arrival) -> None:
        system = system_prompt(self._scenario, arrival)
        messages: list[Message] = [system] if system else []
        scheduled = arrival.at_s
        for number, turn in enumerate(arrival.turns, start=1):
            messages.append(user_message(self._scenario, turn))
            seen = self._send(arrival, number, turn, messages, scheduled)
            last = number == len(arrival.turns)
            if seen.error is not None or last:
                return
            messages.append(reply_message(seen.reply()))
            scheduled = seen.ended + arrival.turns[number].think_s
            if scheduled >= self._scenario.duration_s:
                return
            self._clock.sleep_until(scheduled)

    def _send(
        self, arrival: Arrival, number: int, turn: Turn, messages: Sequence[Message], scheduled: float
    ) -> Observation:
        request_id = f"lt-{uuid.uuid4().hex}"
        self.counts.sent += 1
        if number == 1:
            self.counts.arrivals += 1
            self.counts.last_arrival_sent = self._clock.now()
        seen = self._client.chat(body_of(self._scenario, arrival, turn, messages), request_id)
        self.counts.done += 1
        self.counts.errors += seen.error is not None
        self.counts.last_ended = max(self.counts.last_ended, seen.ended)
        self._on_record(_record(self._scenario, arrival, number, scheduled, request_id, seen), seen)
        return seen


def _record(
    scenario: Scenario, arrival: Arrival, number: int, scheduled: float, request_id: str, seen: Observation
) -> Record:
    turn = arrival.turns[number - 1]
    return Record(
        request_id=request_id,
        server_request_id=seen.server_request_id,
        model=arrival.model,
        user_kind=arrival.user_kind,
        arrival=arrival.index,
        turn=number,
        stream=turn.stream,
        warmup=scheduled < scenario.warmup_s,
        max_tokens=turn.output_tokens,
        scheduled=scheduled,
        sent=seen.sent,
        first_content=seen.stamps[0] if seen.stamps else None,
        last_content=seen.stamps[-1] if seen.stamps else None,
        ended=seen.ended,
        status=seen.status,
        error=seen.error,
        chunks=len(seen.stamps),
        inter_chunk_ms=seen.gaps(),
        prompt_tokens=seen.usage.prompt_tokens,
        cached_tokens=seen.usage.cached_tokens,
        completion_tokens=seen.usage.completion_tokens,
        cost_usd=seen.usage.cost_usd,
        finish_reason=seen.finish_reason,
    )
