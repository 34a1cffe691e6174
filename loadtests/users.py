"""Users at work: every arrival of the schedule becomes a greenlet that sends its turns and writes its
records.

An arrival of an open loop never waits for another one; nor does a request wait for what can be done later: records, and
the prompts of a closed loop's next round. The first turn leaves at its scheduled time; a later turn
follows the reply by its think time and begins only while the run lasts. The users of a closed loop are greenlets that
live as long as the run.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.pool import Group

from loadtests.arrivals import Arrival, Turn, pause_of, round_of
from loadtests.later import A_LOOK_S, Later
from loadtests.observation import Observation
from loadtests.pacing import Closed
from loadtests.records import Record
from loadtests.runinfo import loop_of
from loadtests.scenario import Scenario
from loadtests.stages import span_at
from loadtests.workloads import Message, Prompts, reply_message

#: Called with every complete record and what it was made from.
OnRecord = Callable[[Record, Observation], None]

#: Rounds of a closed loop's users are numbered apart by worker and user, far above any schedule's length.
_ROUNDS = 1_000_000


class Client(Protocol):
    """Whoever sends a body and sees what comes back; it is judged by the one who asked."""

    def send(self, body: Mapping[str, object], request_id: str) -> Observation: ...


class RunClock:
    """Seconds since the start of the run on a monotonic clock. The start is a moment of unix time that all workers are
    told; offset_s is this machine's clock minus that of whoever told it."""

    def __init__(self, at_unix: float, offset_s: float = 0.0) -> None:
        self.started_unix = at_unix
        self._origin = time.perf_counter() - (time.time() - offset_s - at_unix)

    def now(self) -> float:
        return time.perf_counter() - self._origin

    def sleep_until(self, due: float) -> None:
        # gevent may wake a timer early, because it counts from its loop's cached time.
        while (wait := due - self.now()) > 0:
            gevent.sleep(wait)


@dataclass(slots=True)
class Counts:
    """What the run has done so far. arrivals: of the open loop; of a closed one where there is no other."""

    arrivals: int = 0
    sent: int = 0
    done: int = 0
    errors: int = 0
    chunks: int = 0
    last_ended: float = 0.0
    last_arrival_sent: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part of the run: its number, of how many, and the one model it may load (None: all)."""

    worker: int = 0
    workers: int = 1
    only: str | None = None


class _Round:
    """One round of a closed loop's user, made once: while an answer still comes, or when it is due."""

    def __init__(self, scenario: Scenario, prompts: Prompts, name: str | None, user: int, number: int) -> None:
        self._scenario, self._prompts = scenario, prompts
        self._key = name, user, number

    @cached_property
    def pause_s(self) -> float:
        return pause_of(self._scenario, *self._key)

    @cached_property
    def arrival(self) -> Arrival:
        name, user, number = self._key
        return round_of(self._scenario, name, user, number, (user + 1) * _ROUNDS + number)

    @cached_property
    def opening(self) -> list[Message]:
        return opening_of(self._prompts, self.arrival)

    def prepare(self) -> None:
        assert self.pause_s >= 0 and self.opening is not None


class Dispatcher:
    """Lets a worker's part of a schedule happen."""

    def __init__(
        self, scenario: Scenario, prompts: Prompts, client: Client, clock: RunClock, on_record: OnRecord, share: Share
    ) -> None:
        self.counts = Counts()
        self._scenario, self._prompts, self._client, self._clock = scenario, prompts, client, clock
        self._on_record = on_record
        self._share = share
        self._course = scenario.course
        self._count_rounds = loop_of(scenario) == "closed"
        self._greenlets = Group()
        self._later = Later()
        self._stopped = Event()
        self._failure: BaseException | None = None

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """Send everything; returns when the last answer is complete and recorded. Raises what a user's greenlet died
        of."""
        working = gevent.Greenlet(self._later.run)
        working.link_exception(self._failed)
        working.start()
        for name, process in self._scenario.processes.items():
            if isinstance(process, Closed):
                for user in range(self._share.worker, process.users, self._share.workers):
                    self._start(self._live_in_loop, name, user, process.users)
        for arrival in arrivals:
            while not self._stopped.is_set() and (wait := arrival.at_s - self._clock.now()) > 0:
                self._stopped.wait(wait)
            if self._stopped.is_set():
                break
            self._start(self._live, arrival)
        self._greenlets.join()
        working.kill()
        try:
            self._later.finish()
        except Exception as error:
            self._failure = self._failure or error
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Send nothing more and end all requests in flight; each still writes its record."""
        self._stopped.set()
        self._greenlets.kill()
        self._later.finish()

    def _start(self, what: Callable[..., None], *arguments: object) -> None:
        greenlet = gevent.Greenlet(what, *arguments)
        greenlet.link_exception(self._failed)
        self._greenlets.start(greenlet)

    def _failed(self, greenlet: gevent.Greenlet) -> None:
        # A fault of the generator itself: the run would go on with users missing, and nobody would know.
        self._failure = self._failure or greenlet.exception
        self._stopped.set()
        gevent.spawn(self._greenlets.kill)

    def _live_in_loop(self, name: str | None, user: int, users: int) -> None:
        number, coming = 0, self._round(name, user, 0)
        # One who was stopped has a request's end behind them like everybody else, and would go on.
        while not self._stopped.is_set():
            due = self._clock.now() if number else 0.0
            due += coming.pause_s
            if due >= self._scenario.duration_s:
                return
            self._clock.sleep_until(due)
            # A stage with a factor lets that share of the users work; the others look again after a moment.
            if user >= users * min(1.0, span_at(self._course, self._clock.now()).factor(self._clock.now())):
                gevent.sleep(0.1)
                if self._clock.now() >= self._scenario.duration_s:
                    return
                continue
            this, number = coming, number + 1
            coming = self._round(name, user, number)
            self._later.do(coming.prepare)
            if self._share.only in (None, this.arrival.model):
                self._live(this.arrival, this.opening, due)

    def _round(self, name: str | None, user: int, number: int) -> _Round:
        return _Round(self._scenario, self._prompts, name, user, number)

    def _live(self, arrival: Arrival, messages: list[Message] | None = None, due: float | None = None) -> None:
        messages = messages or opening_of(self._prompts, arrival)
        scheduled = arrival.at_s if due is None else due
        number, call_id = 0, None
        ended = 0.0
        for place, turn in enumerate(arrival.turns):
            if number:
                # Nothing to bring when the model called no tool after all.
                if turn.after_tool and call_id is None:
                    continue
                scheduled = ended + turn.think_s
                if scheduled >= self._scenario.duration_s:
                    return
                self._clock.sleep_until(scheduled)
                if turn.after_tool and call_id is not None:
                    messages.append(self._prompts.tool_result(turn, call_id))
                else:
                    messages.append(self._prompts.user(turn))
            number += 1
            seen = self._send(arrival, number, turn, messages, scheduled)
            if place + 1 == len(arrival.turns):
                return
            # Others' chunks that have arrived by now get their stamps first.
            gevent.sleep(A_LOOK_S)
            if seen.judge().error is not None:
                return
            ended = seen.ended
            calls = seen.tool_calls()[:1]
            call_id = calls[0]["id"] if calls else None
            messages.append(reply_message(seen.reply(), calls))

    def _send(
        self, arrival: Arrival, number: int, turn: Turn, messages: Sequence[Message], scheduled: float
    ) -> Observation:
        request_id = f"lt-{uuid.uuid4().hex}"
        self.counts.sent += 1
        if number == 1 and (arrival.user is None or self._count_rounds):
            self.counts.arrivals += 1
            self.counts.last_arrival_sent = self._clock.now()
        seen = self._client.send(self._prompts.body(arrival, turn, messages), request_id)
        self.counts.done += 1
        self.counts.chunks += seen.pieces
        self.counts.last_ended = max(self.counts.last_ended, seen.ended)
        self._later.do(lambda: self._finish(arrival, number, turn, scheduled, request_id, seen))
        return seen

    def _finish(
        self, arrival: Arrival, number: int, turn: Turn, scheduled: float, request_id: str, seen: Observation
    ) -> None:
        self.counts.errors += seen.judge().error is not None
        self._on_record(self._record(arrival, number, turn, scheduled, request_id, seen), seen)

    def _record(
        self, arrival: Arrival, number: int, turn: Turn, scheduled: float, request_id: str, seen: Observation
    ) -> Record:
        span = span_at(self._course, scheduled)
        return Record(
            request_id=request_id,
            server_request_id=seen.server_request_id,
            model=arrival.model,
            user_kind=arrival.user_kind,
            arrival=arrival.index,
            turn=number,
            stream=turn.stream,
            warmup=not span.measured,
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
            completion_tokens=_written(turn, seen),
            cost_usd=seen.usage.cost_usd,
            finish_reason=seen.finish_reason,
            api="embeddings" if turn.inputs else "chat",
            stage=span.name,
            worker=self._share.worker,
            first_answer=seen.first_answer if turn.stream else None,
            first_event=seen.first_event,
            last_event=seen.last_event,
            gaps_ms=seen.gaps_ms(),
            tool_calls=len(seen.calls),
            images=1 if turn.picture else 0,
            items=max(1, len(turn.inputs)),
            open_loop=arrival.user is None,
        )


def _written(turn: Turn, seen: Observation) -> int | None:
    """Completion tokens; embeddings write none, which is known whatever their usage says."""
    if turn.inputs and seen.error is None:
        return 0
    return seen.usage.completion_tokens


def opening_of(prompts: Prompts, arrival: Arrival) -> list[Message]:
    """What a user's first request says; [] for a batch to embed, which says it elsewhere."""
    system, first = prompts.system(arrival), arrival.turns[0]
    messages: list[Message] = [system] if system else []
    return messages if first.inputs else [*messages, prompts.user(first)]
