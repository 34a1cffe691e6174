"""The books of one live replica: steps in, charges out, readings to the ledger.

Joins the pure `ReplicaMeter` with the step channel, the clock and whoever writes readings down. One event loop owns
it. A request's charge can be asked for as soon as its last step has arrived (`settled`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from serving.engines.entries import Entry, Line
from serving.engines.spending import Watches
from serving.engines.steps import Ended, Step, phase_and_lost
from serving.engines.tenanttotals import TenantTotals
from serving.engines.unmetered import Unmetered
from serving.errors import SpoolFull
from serving.fleet.attribution import Charge, ReplicaMeter
from serving.fleet.autoscaling.signals import Sums
from serving.fleet.autoscaling.told import ReplicaTold
from serving.fleet.loading import NO_LOADING, LoadingPolicy
from serving.fleet.money import PriceLine
from serving.fleet.prices import Comparison
from serving.fleet.records import (
    ChargeRecord,
    EngineOutcome,
    MeterReading,
    Method,
    Phase,
    SourceRecord,
    Tokens,
)

log = logging.getLogger(__name__)
REQUEST_ID = re.compile(r"flo-[0-9a-f]{32}")
UNKNOWN_TENANT = "-"  # work that did not come through the gateway
_KEEP_S = 10.0  # an ended request may still be part of a step under way
_BACKGROUND_S = 3600.0  # work in the background may wait, and pause for its tools, while no call is under way
_REMEMBERED = 1_000  # costs of responses that may be asked for again, as many as the replica keeps responses
_PHASES: tuple[Phase, ...] = ("decode", "prefill", "recompute")
Write = Callable[[MeterReading], None]


@dataclass(frozen=True)
class ReplicaFacts:
    """What does not change while a replica lives.

    `idle_tenant`: who is charged with its idle time instead of the requests. `compared`: the APIs that its traffic is
    held against. `windowed`: its engine tells no steps. `refuses`: whether it takes no more requests when nothing can
    be written down any more, or goes on unmetered.
    """

    replica_id: str
    model: str
    variant: str
    prices: PriceLine
    loading: LoadingPolicy = NO_LOADING
    idle_tenant: str = ""
    compared: tuple[Comparison, ...] = ()
    windowed: bool = False
    refuses: bool = True


class Books:
    """Keeps one replica's meter. All times are monotonic nanoseconds except where a name says otherwise."""

    def __init__(self, facts: ReplicaFacts, started_ns: int, started_at: float, write: Write) -> None:
        self._facts, self._started_at, self._write = facts, started_at, write
        self._meter = ReplicaMeter(facts.prices, started_ns, started_at, facts.loading)
        self._open: dict[str, Entry] = {}
        self._lines: dict[str, Line] = {}  # by engine request
        self._watches = Watches()
        self._past: OrderedDict[str, int] = OrderedDict()  # nano-USD of stored answers whose requests are over
        self._changed: set[str] = set()
        self._totals = TenantTotals(facts.replica_id)
        self._unmetered = Unmetered(facts.replica_id)
        self._number = self._folded = 0
        self._full = False
        self._in_http = self._unread = 0
        self._served = Sums()
        self._used_at = time.monotonic()
        self._endpoint = ""
        self._closed = False
        self._writing = asyncio.Lock()  # an older reading must not replace a newer one

    # -- what the HTTP side tells

    def admit(self, request_id: str, tenant: str, stored: bool = False) -> None:
        """A request of `tenant` is about to enter the engine. `stored`: its answer may be asked for again."""
        self._window()
        self._in_http += 1
        entry = self._open.get(request_id)
        if entry is None:
            entry = self._open[request_id] = Entry(tenant, stored=stored)
        entry.calls, entry.idle_since = entry.calls + 1, None

    def watch(self, request_id: str, nanousd: int, stop: Callable[[], None]) -> None:
        """Have `stop` called before an admitted request costs more than so much."""
        self._watches.add(request_id, nanousd, stop)

    def in_background(self, request_id: str, stop: Callable[[], None]) -> None:
        """An admitted request's work goes on after its answer; `stop` ends it, should it cost more than it may."""
        if (entry := self._open.get(request_id)) is not None:
            entry.background = True
            self._watches.hand_over(request_id, stop)

    def worked_on(self, request_id: str) -> bool:
        """Whether the engine has had anything to do with an admitted request."""
        entry = self._open.get(request_id)
        return entry is not None and bool(entry.running or entry.ended or request_id in self._meter.charges)

    def leave(self, request_id: str, outcome: EngineOutcome = "finished", tokens: Tokens | None = None) -> None:
        """An admitted request's answer has ended, whole or not.

        `outcome`, `tokens`: as its answer told them; what counts where the engine tells no steps.
        """
        self._window()
        if self._facts.windowed and (entry := self._open.get(request_id)) is not None and entry.calls == 1:
            self._over(request_id, entry, outcome, tokens or Tokens())
        self._in_http -= 1
        self._used_at = time.monotonic()
        entry = self._open.get(request_id)
        if entry is None or not entry.background:
            self._watches.drop(request_id)
        if entry is not None:
            entry.calls -= 1
            entry.rest()

    def ready(self, endpoint: str) -> None:
        """The replica takes requests from now on, at `endpoint` (host:port)."""
        self._endpoint, self._used_at = endpoint, time.monotonic()
        self._meter.ready(time.monotonic_ns())

    @property
    def accepting(self) -> bool:
        """Whether requests may come: not while nothing can be written down, unless they are to be served unmetered."""
        return not (self._full and self._facts.refuses)

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, or work for one that goes on without a caller."""
        return self._in_http > 0 or any(entry.running for entry in self._open.values())

    @property
    def idle_s(self) -> float:
        """Seconds since there was last something to do, 0 while there is."""
        if self.busy:
            self._used_at = time.monotonic()
        return time.monotonic() - self._used_at

    @property
    def told(self) -> ReplicaTold:
        """What whoever decides about replicas wants to know, as far as the books know it."""
        running = sum(len(entry.running) for entry in self._open.values())
        meter, served = self._meter, self._served
        fit = None if self._facts.windowed else meter.fitter.fit()
        steps = {} if fit is None else {"fixed": fit.fixed, "token": fit.token, "attention": fit.attention,
                                        "cache_s": fit.cache}
        return ReplicaTold(
            running=running, waiting=max(0, self._in_http - running),
            waiting_tokens=self._unread if self.busy else 0, busy_s=meter.account.total.busy_ns / 1e9,
            finished=served.finished, prompt=served.prompt, computed=served.computed,
            computed_squared=served.computed_squared, output=served.output,
            start_s=meter.account.total.cold_ns / 1e9, price=meter.account.price_nanousd_per_hour, **steps)

    async def settled(self, request_id: str, timeout_s: float = 1.0) -> int | None:
        """All that the request is charged with, nano-USD: once the engine has dropped it; after the timeout, so far.

        None: the request is not known any more.
        """
        if self._meter.ready_ns is None:
            return 0  # warm-up is no one's request, so nothing of it will be booked
        entry = self._open.get(request_id)
        if entry is None:
            return self._past.get(request_id)
        if self._facts.windowed:
            self._window()
            self._meter.ended(request_id)
        elif not entry.settled.is_set():
            try:
                await asyncio.wait_for(entry.settled.wait(), timeout_s)
            except TimeoutError:
                log.warning("the engine's last step of %s is late; its cost so far goes out", request_id)
        charge = self._meter.charges.get(request_id)
        return charge.amounts("running").loaded if charge else 0

    def reprice(self, at_s: float, line: PriceLine) -> None:
        """The replica costs something else from `at_s` (Unix seconds) on; what is booked already keeps its price."""
        log.info("the price of this replica is %.6g USD an hour from now on", line.at(at_s) / 1e9)
        self._meter.account.reprice(at_s, line)

    # -- what the engine tells

    def take(self, step: Step) -> None:
        """Book one engine step. What ran before the replica was ready is warm-up: time, but no one's request."""
        if self._meter.ready_ns is None:
            for start, end in ((step.start_ns, step.end_ns), *step.again):
                self._meter.step(start, end, [])
            return
        if step.works:
            known, works = self._lines, []
            for engine_id, tokens, context, marks in step.works:
                line = known.get(engine_id) or self._begin(engine_id)
                line.tokens, line.context = tokens, context
                phase, line.lost = phase_and_lost(marks) if marks else (0, 0)
                line.phase = _PHASES[phase]
                works.append(line)
            self._meter.step(step.start_ns, step.end_ns, works, step.folded + 1)
            for start, end in step.again:
                for line in works:
                    line.context += line.tokens
                self._meter.step(start, end, works, 1)
            self._changed.update([line.request_id for line in works])
        self._folded += step.folded
        if step.unread >= 0:
            self._unread = step.unread
        for ended in step.ended:
            self._end(ended)
        if self._watches:
            self._look()

    def _look(self) -> None:
        """Stop who is about to cost more than it may."""
        self._watches.look(self._meter.charges, self._meter.pool.due, lambda request_id: bool(
            self._facts.windowed or self._open[request_id].running))

    def _begin(self, engine_id: str) -> Line:
        """The line of an engine request that has none yet."""
        request_id = self._request_of(engine_id)
        entry = self._open[request_id]
        line = self._lines[engine_id] = Line(request_id, entry)
        if engine_id not in entry.ended:  # else a step that was under way when the request ended
            entry.running.add(engine_id)
            entry.settled.clear()
            entry.idle_since = None
        return line

    def _request_of(self, engine_id: str) -> str:
        found = REQUEST_ID.search(engine_id)
        request_id = found.group() if found else engine_id
        entry = self._open.get(request_id)
        if entry is None:
            entry = self._open[request_id] = Entry(UNKNOWN_TENANT)
        return request_id

    def _end(self, ended: Ended) -> None:
        request_id = self._request_of(ended.engine_id)
        entry = self._open[request_id]
        entry.running.discard(ended.engine_id)
        entry.ended.add(ended.engine_id)
        entry.preemptions += ended.preemptions
        tokens = Tokens(ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens)
        if entry.running:
            entry.tokens += tokens
            self._changed.add(request_id)
        else:
            self._over(request_id, entry, ended.outcome, tokens)  # type: ignore[arg-type]

    def _over(self, request_id: str, entry: Entry, outcome: EngineOutcome, tokens: Tokens) -> None:
        """All that the request has begun so far has ended."""
        entry.tokens += tokens
        if outcome == "finished" and not entry.settled.is_set():
            self._served += Sums.of(entry.tokens.prompt, entry.tokens.cached, entry.tokens.completion)
        if entry.booked is None:  # else what is waste would become direct again, and counters would go back
            entry.outcome = outcome
        entry.compared = {c.name: c.nanousd(entry.tokens) for c in self._facts.compared}
        self._meter.ended(request_id)
        self._changed.add(request_id)
        entry.settled.set()
        entry.rest()
        self._used_at = time.monotonic()

    def _window(self) -> None:
        """Where the engine tells no steps: book the time so far for those who are here."""
        if self._facts.windowed:
            there = [request_id for request_id, entry in self._open.items() if entry.calls]
            self._meter.window(time.monotonic_ns(), there)
            self._changed.update(there)
            self._look()

    # -- what the ledger gets

    def reading(self) -> MeterReading:
        """A consistent reading of everything that changed since the last one."""
        if self._facts.windowed:
            self._window()
        elif self._closed or not self._in_http:
            self._meter.quiet(time.monotonic_ns())
        now, charges = time.time(), []
        for request_id in self._changed:
            entry = self._open[request_id]
            charge = self._charge(request_id, entry, now)
            charges.append(charge)
            if entry.outcome != "running":
                entry.booked = self._totals.book(charge, entry.booked)
        charges += self._unmetered.rows(now)
        self._number += 1
        intervals = tuple(i.record(self._facts.replica_id) for i in self._meter.account.changes())
        self._changed.clear()
        return MeterReading(self._number, self._source(now), intervals, tuple(charges), self._totals.changes())

    def unread(self, reading: MeterReading) -> None:
        """A reading could not be written: it is part of the next one again."""
        self._changed.update(c.request_id for c in reading.charges if c.request_id in self._open)
        self._totals.again(reading.totals)
        self._meter.account.again(reading.intervals)
        self._unmetered.again()

    def _charge(self, request_id: str, entry: Entry, now: float) -> ChargeRecord:
        charge = self._meter.charges.get(request_id) or Charge(method=self._method)
        return ChargeRecord(
            self._facts.replica_id, request_id, entry.tenant, entry.outcome, charge.amounts(entry.outcome),
            entry.tokens, charge.method, now, entry.preemptions, charge.recomputed, charge.rejected, entry.compared,
            charge.trail.segments(),
        )

    @property
    def _method(self) -> Method:
        return "window" if self._facts.windowed else self._meter.method

    def _source(self, now: float) -> SourceRecord:
        meter, facts = self._meter, self._facts
        total = meter.account.total
        return SourceRecord(
            facts.replica_id, "replica", facts.model, facts.variant, self._endpoint,
            meter.account.price_nanousd_per_hour, self._started_at, now, meter.ready_ns is not None, self._closed,
            total.elapsed_ns, total.cold_ns, total.idle_ns, total.busy_ns, total.cold_nanousd, total.idle_nanousd, 0,
            self._folded, self._method, facts.idle_tenant, None if facts.windowed else meter.fitter.fit(),
            self._unmetered.requests,
        )

    def sweep(self) -> None:
        """Forget requests that are over for long enough. What they cost stays in the totals."""
        now = time.monotonic()
        gone = [rid for rid, entry in self._open.items() if entry.idle_since is not None and rid not in self._changed
                and now - entry.idle_since > (_BACKGROUND_S if entry.background else _KEEP_S)]
        for request_id in gone:
            self._forget(request_id)
        while len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    def _forget(self, request_id: str) -> None:
        entry = self._open.pop(request_id)
        self._watches.drop(request_id)
        charge = self._meter.charges.pop(request_id, None)
        for engine_id in entry.ended:
            self._lines.pop(engine_id, None)
        if entry.stored and charge is not None:
            self._past[request_id] = charge.amounts("running").loaded

    async def write(self) -> None:
        """Write one reading down; what cannot be written stays for the next time."""
        async with self._writing:
            reading = self.reading()
            try:
                await asyncio.to_thread(self._write, reading)
            except Exception as error:
                self.unread(reading)
                self._full = isinstance(error, SpoolFull)
                log.warning("the ledger took no reading (%s); it is kept and tried again", error)
                if self._full and not self._facts.refuses:
                    self._forget_unwritten(reading)
                return
            self._full = False
            for charge in reading.charges:
                if (entry := self._open.get(charge.request_id)) is not None:
                    entry.written = True
            self.sweep()

    def _forget_unwritten(self, reading: MeterReading) -> None:
        """Requests go on without rows of their own: what ended ones cost is one sum per tenant."""
        for charge in reading.charges:
            entry = self._open.get(charge.request_id)
            if entry is not None and not entry.written and charge.outcome != "running" and not entry.calls:
                self._unmetered.add(self._charge(charge.request_id, entry, charge.updated_at))
                self._changed.discard(charge.request_id)
                self._forget(charge.request_id)

    async def keep(self, every_s: float = 0.5) -> None:
        """Write readings down at a steady pace, until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(every_s)

    async def close(self) -> None:
        """The replica stops: what is still under way has failed; write the last reading."""
        for request_id, entry in self._open.items():
            if entry.running:
                entry.running.clear()
                self._over(request_id, entry, "failed", Tokens())
        self._closed = True
        await self.write()
