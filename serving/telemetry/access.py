"""The access log: a line for each request, with who asked, what came of it and what it cost.

Gateways hand records over and go on; a thread of its own writes them, at most so many per second, into files that turn
over. What is left out is counted in the log itself. May not happen in here: making a request wait or fail; anything
that callers or models say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

from serving.fleet.observing import LogSpec
from serving.fleet.records import RequestRecord
from serving.telemetry.logs import moment

log = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()
_EVERY_S = 0.25
_FILES = 4  # that share the disk space
_Line = tuple[RequestRecord, float | None, str]


class AccessLog:
    """Writes to `access-<number>.log` in a folder until closed. `clock`: monotonic seconds."""

    def __init__(self, spec: LogSpec, folder: Path, number: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._json, self._limit, self._clock = spec.form == "json", spec.access_per_s, clock
        # counted by the one who puts, and set by the thread: a request neither looks at a clock nor takes a lock
        self._count, self._left_out = 0, 0
        self._until, self._told, self._second = self._limit, 0, int(clock())
        self._lines: deque[_Line] = deque()
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"access-{number}.log"
        size = int(spec.access_mib * 2**20 / _FILES)
        self._handler = RotatingFileHandler(self.file, maxBytes=size, backupCount=_FILES - 1, encoding="utf-8",
                                            delay=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def put(self, record: RequestRecord, cost_usd: float | None, trace_id: str) -> None:
        """A request is over."""
        if self._count >= self._until:
            self._left_out += 1
            return
        self._count += 1
        self._lines.append((record, cost_usd, trace_id))

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        self._thread.join(5)

    def _write(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._flush()
        self._flush()
        self._handler.close()

    def _flush(self) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._until = second, self._count + self._limit
        try:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            text = [as_json(*line) if self._json else as_text(*line) for line in lines]
            if left_out := self._left_out - self._told:
                self._told += left_out
                said = f"{left_out} requests above {self._limit} a second are left out; the ledger has them"
                at = moment(time.time())
                told = _ENCODER.encode({"at": at, "left_out": left_out}).decode()
                text.append(told if self._json else f"{at} {said}")
            if text:
                self._handler.handle(logging.makeLogRecord({"msg": "\n".join(text)}))
        except Exception:  # a full disk must not end the thread
            log.exception("the access log cannot be written")


class _Row(msgspec.Struct, omit_defaults=True):
    """A request as an object; what is not known is left out."""

    at: str
    code: int
    outcome: str
    endpoint: str
    duration_s: float
    stream: bool
    request_id: str = ""
    caller_id: str = ""
    trace_id: str = ""
    tenant: str = ""
    key_id: str = ""
    model: str = ""
    adapter: str = ""
    preset: str = ""
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None


def as_json(record: RequestRecord, cost_usd: float | None, trace_id: str) -> str:
    """A request as an object."""
    tokens, ttft_s = record.tokens, record.ttft_s
    prompt, cached, completion = (tokens.prompt, tokens.cached, tokens.completion) if tokens else (None, None, None)
    row = _Row(moment(record.started_at), record.code, record.outcome, record.endpoint, round(record.duration_s, 4),
               record.stream, record.request_id, record.caller_id, trace_id, record.tenant, record.key_id, record.model,
               record.adapter, record.preset, None if ttft_s is None else round(ttft_s, 4), prompt, cached, completion,
               cost_usd)
    return _ENCODER.encode(row).decode()


def as_text(record: RequestRecord, cost_usd: float | None, trace_id: str) -> str:
    """A request as a line for people."""
    tokens, asked = record.tokens, record.adapter or record.model or "-"
    parts = [moment(record.started_at), str(record.code), record.outcome, record.tenant or "-", record.endpoint,
             f"{asked} as {record.preset}" if record.preset else asked, f"{record.duration_s:.3f}s"]
    if record.ttft_s is not None:
        parts.append(f"first {record.ttft_s:.3f}s")
    if tokens is not None:
        parts.append(f"{tokens.prompt}+{tokens.completion} tokens")
    if cost_usd is not None:
        parts.append(f"${cost_usd:.9f}")
    parts.append(record.request_id)
    return " ".join([*parts, f"trace {trace_id}"] if trace_id else parts)
