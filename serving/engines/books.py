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
from dataclasses import dataclass, field, replace

from serving.engines.steps import Ended, Step
from serving.fleet.attribution import METHOD, Charge, ReplicaMeter
from serving.fleet.records import (
    ChargeRecord,
    EngineOutcome,
    MeterReading,
    ReplicaRecord,
    Tokens,
    TotalRecord,
    bucket_of,
)

log = logging.getLogger(__name__)
REQUEST_ID = re.compile(r"flo-[0-9a-f]{32}")
UNKNOWN_TENANT = "-"  # work that did not come through the gateway
_KEEP_S = 10.0  # an ended request may still be part of a step under way
_BACKGROUND_S = 3600.0  # work in the background may wait, and pause for its tools, while no call is under way
_REMEMBERED = 1_000  # costs of responses that may be asked for again, as many as the replica keeps responses
Write = Callable[[MeterReading], None]


@dataclass(frozen=True)
class ReplicaFacts:
    """What does not change while a replica lives."""

    replica_id: str
    model: str
    accelerator: str
    price_nanousd_per_hour: int


@dataclass
class _Open:
    """One HTTP request and the engine requests it has become."""

    tenant: str
    calls: int = 0  # HTTP calls under way
    running: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    tokens: Tokens = Tokens()
    outcome: EngineOutcome = "running"
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    idle_since: float | None = None  # monotonic seconds since when neither caller nor engine works on it
    booked: TotalRecord | None = None  # what the totals hold of it
    stored: bool = False  # its answer may be asked for again
    background: bool = False  # it goes on without a caller

    def rest(self) -> None:
        """Note since when no one works on it, if that is so."""
        if not self.calls and not self.running:
            self.idle_since = time.monotonic()


class _Line:
    """One engine request's part in a step: an `attribution.Work` that is filled anew each step, not made anew."""

    __slots__ = ("entry", "request_id", "tokens", "context")

    def __init__(self, request_id: str, entry: _Open) -> None:
        self.request_id, self.entry, self.tokens, self.context = request_id, entry, 0, 0

    @property
    def pairs(self) -> float:
        """As `Work.pairs`."""
        return self.tokens * (self.context + (self.tokens - 1) / 2)


class Books:
    """Keeps one replica's meter. All times are monotonic nanoseconds except where a name says otherwise."""

    def __init__(self, facts: ReplicaFacts, started_ns: int, started_at: float, write: Write) -> None:
        self._facts, self._started_at, self._write = facts, started_at, write
        self._meter = ReplicaMeter(facts.price_nanousd_per_hour, started_ns)
        self._open: dict[str, _Open] = {}
        self._lines: dict[str, _Line] = {}  # by engine request
        self._past: OrderedDict[str, int] = OrderedDict()  # nano-USD of stored answers whose requests are over
        self._changed: set[str] = set()
        self._totals: dict[tuple[str, str], TotalRecord] = {}
        self._unwritten: set[tuple[str, str]] = set()
        self._folded = 0
        self._in_http = 0
        self._used_at = time.monotonic()
        self._endpoint = ""
        self._closed = False
        self._writing = asyncio.Lock()  # an older reading must not replace a newer one

    # -- what the HTTP side tells

    def admit(self, request_id: str, tenant: str, stored: bool = False) -> None:
        """A request of `tenant` is about to enter the engine. `stored`: its answer may be asked for again."""
        self._in_http += 1
        entry = self._open.get(request_id)
        if entry is None:
            entry = self._open[request_id] = _Open(tenant, stored=stored)
        entry.calls, entry.idle_since = entry.calls + 1, None

    def in_background(self, request_id: str) -> None:
        """An admitted request's work goes on after its answer."""
        if (entry := self._open.get(request_id)) is not None:
            entry.background = True

    def worked_on(self, request_id: str) -> bool:
        """Whether the engine has had anything to do with an admitted request."""
        entry = self._open.get(request_id)
        return entry is not None and bool(entry.running or entry.ended or request_id in self._meter.charges)

    def leave(self, request_id: str) -> None:
        """An admitted request's answer has ended, whole or not."""
        self._in_http -= 1
        self._used_at = time.monotonic()
        entry = self._open.get(request_id)
        if entry is not None:
            entry.calls -= 1
            entry.rest()

    def ready(self, endpoint: str) -> None:
        """The replica takes requests from now on, at `endpoint` (host:port)."""
        self._endpoint, self._used_at = endpoint, time.monotonic()
        self._meter.ready(time.monotonic_ns())

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

    async def settled(self, request_id: str, timeout_s: float = 1.0) -> int | None:
        """The request's charge in nano-USD, once the engine has dropped it or after the timeout as far as known.

        None: the request is not known any more.
        """
        if self._meter.ready_ns is None:
            return 0  # warm-up is no one's request, so nothing of it will be booked
        entry = self._open.get(request_id)
        if entry is None:
            return self._past.get(request_id)
        if not entry.settled.is_set():
            try:
                await asyncio.wait_for(entry.settled.wait(), timeout_s)
            except TimeoutError:
                log.warning("the engine's last step of %s is late; its cost so far goes out", request_id)
        charge = self._meter.charges.get(request_id)
        return charge.nanousd if charge else 0

    # -- what the engine tells

    def take(self, step: Step) -> None:
        """Book one engine step. What ran before the replica was ready is warm-up: time, but no one's request."""
        if self._meter.ready_ns is None:
            self._meter.step(step.start_ns, step.end_ns, [])
            return
        if step.works:
            known, works = self._lines, []
            for engine_id, tokens, context in step.works:
                line = known.get(engine_id) or self._begin(engine_id)
                line.tokens, line.context = tokens, context
                works.append(line)
            self._meter.step(step.start_ns, step.end_ns, works)  # type: ignore[arg-type]
            self._changed.update([line.request_id for line in works])
        self._folded += step.folded
        for ended in step.ended:
            self._end(ended)

    def _begin(self, engine_id: str) -> _Line:
        """The line of an engine request that has none yet."""
        request_id = self._request_of(engine_id)
        entry = self._open[request_id]
        line = self._lines[engine_id] = _Line(request_id, entry)
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
            entry = self._open[request_id] = _Open(UNKNOWN_TENANT)
        return request_id

    def _end(self, ended: Ended) -> None:
        request_id = self._request_of(ended.engine_id)
        entry = self._open[request_id]
        entry.running.discard(ended.engine_id)
        entry.ended.add(ended.engine_id)
        entry.tokens += Tokens(ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens)
        self._changed.add(request_id)
        if not entry.running:
            entry.outcome = ended.outcome  # type: ignore[assignment]
            entry.settled.set()
            entry.rest()
            self._used_at = time.monotonic()

    # -- what the ledger gets

    def reading(self) -> MeterReading:
        """A consistent reading of everything that changed since the last one."""
        if self._closed or not self._in_http:
            self._meter.quiet(time.monotonic_ns())
        now, charges = time.time(), []
        for request_id in self._changed:
            entry, charge = self._open[request_id], self._meter.charges.get(request_id, Charge())
            charges.append(ChargeRecord(self._facts.replica_id, request_id, entry.tenant, entry.outcome, charge.nanousd,
                                        entry.tokens, now))
            if entry.outcome != "running":
                self._book(entry, charge)
        reading = MeterReading(self._replica(now), tuple(charges), tuple(self._totals[k] for k in self._unwritten))
        self._changed.clear()
        self._unwritten.clear()
        return reading

    def unread(self, reading: MeterReading) -> None:
        """A reading could not be written: it is part of the next one again."""
        self._changed.update(c.request_id for c in reading.charges)
        self._unwritten.update((t.tenant, t.bucket) for t in reading.totals)

    def _book(self, entry: _Open, charge: Charge) -> None:
        """Bring an ended request's share of its tenant's totals up to date; a later step adds only what is new."""
        nothing = TotalRecord(self._facts.replica_id, entry.tenant, bucket_of(entry.outcome), 0, 0, Tokens())
        old = entry.booked or nothing
        new = replace(old, nanousd=charge.nanousd, requests=1, tokens=entry.tokens)
        key = (old.tenant, old.bucket)
        total = self._totals.get(key) or replace(old, nanousd=0, requests=0, tokens=Tokens())
        self._totals[key] = replace(
            total,
            nanousd=total.nanousd + new.nanousd - old.nanousd,
            requests=total.requests + new.requests - old.requests,
            tokens=total.tokens + new.tokens - old.tokens,
        )
        entry.booked = new
        self._unwritten.add(key)

    def _replica(self, now: float) -> ReplicaRecord:
        meter, facts = self._meter, self._facts
        return ReplicaRecord(
            facts.replica_id, facts.model, facts.accelerator, self._endpoint, facts.price_nanousd_per_hour,
            self._started_at, now, meter.ready_ns is not None, self._closed, meter.seen_ns - meter.started_ns,
            meter.cold_ns, meter.idle_ns, meter.busy_ns, meter.cold_nanousd, meter.idle_nanousd, self._folded, METHOD,
        )

    def sweep(self) -> None:
        """Forget requests that are over for long enough. What they cost stays in the totals."""
        now = time.monotonic()
        gone = [rid for rid, entry in self._open.items() if entry.idle_since is not None and rid not in self._changed
                and now - entry.idle_since > (_BACKGROUND_S if entry.background else _KEEP_S)]
        for request_id in gone:
            entry = self._open.pop(request_id)
            charge = self._meter.charges.pop(request_id, None)
            for engine_id in entry.ended:
                self._lines.pop(engine_id, None)
            if entry.stored and charge is not None:
                self._past[request_id] = charge.nanousd
        while len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    async def write(self) -> None:
        """Write one reading down; what cannot be written stays for the next time."""
        async with self._writing:
            reading = self.reading()
            try:
                await asyncio.to_thread(self._write, reading)
                self.sweep()
            except Exception as error:
                self.unread(reading)
                log.warning("the ledger took no reading (%s); it is kept and tried again", error)

    async def keep(self, every_s: float = 0.5) -> None:
        """Write readings down at a steady pace, until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(every_s)

    async def close(self) -> None:
        """The replica stops: write the last reading."""
        self._closed = True
        await self.write()
