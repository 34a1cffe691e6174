"""What a replica's books know of the requests that are not over for long: one entry each, and one line per engine
request, which steps fill in.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from serving.fleet.records import EngineOutcome, Phase, Tokens, TotalRecord


@dataclass
class Entry:
    """One HTTP request and the engine requests it has become."""

    tenant: str
    calls: int = 0  # HTTP calls under way
    running: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    tokens: Tokens = Tokens()
    preemptions: int = 0
    outcome: EngineOutcome = "running"
    compared: dict[str, int] = field(default_factory=dict)  # nano-USD of its tokens at each comparator
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    idle_since: float | None = None  # monotonic seconds since when neither caller nor engine works on it
    booked: TotalRecord | None = None  # what the totals hold of it
    written: bool = False  # a row of it has been kept
    stored: bool = False  # its answer may be asked for again
    background: bool = False  # it goes on without a caller

    def rest(self) -> None:
        """Note since when no one works on it, if that is so."""
        if not self.calls and not self.running:
            self.idle_since = time.monotonic()


class Line:
    """One engine request's part in a step: an `attribution.Working` that is filled anew each step, not made anew."""

    __slots__ = ("entry", "request_id", "tokens", "context", "phase", "lost")

    def __init__(self, request_id: str, entry: Entry) -> None:
        self.request_id, self.entry, self.tokens, self.context = request_id, entry, 0, 0
        self.phase: Phase = "decode"
        self.lost = 0
