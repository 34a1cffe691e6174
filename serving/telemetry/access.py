"""The access log: a line for each request, with who asked, what came of it and what it cost.

Gateways hand records over and go on; a thread of its own writes them, at most so many per second, into files that turn
over. What is left out is counted in the log itself. May not happen in here: making a request wait or fail; anything
that callers or models say.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from serving.fleet.observing import LogSpec
from serving.fleet.records import RequestRecord
from serving.telemetry.logs import moment

log = logging.getLogger(__name__)
_EVERY_S = 0.25
_FILES = 4  # that share the disk space
_Line = tuple[RequestRecord, float | None, str]


class AccessLog:
    """Writes to `access-<number>.log` in a folder until closed. `clock`: monotonic seconds."""

    def __init__(self, spec: LogSpec, folder: Path, number: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._json, self._limit, self._clock = spec.form == "json", spec.access_per_s, clock
        self._second, self._count = 0, 0
        self._left_out, self._told = 0, 0  # counted by the one who puts, and by the thread
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
        second = int(self._clock())
        if second != self._second:
            self._second, self._count = second, 0
        if self._count >= self._limit:
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
        try:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            text = [as_json(*line) if self._json else as_text(*line) for line in lines]
            if left_out := self._left_out - self._told:
                self._told += left_out
                said = f"{left_out} requests above {self._limit} a second are left out; the ledger has them"
                at = moment(time.time())
                text.append(json.dumps({"at": at, "left_out": left_out}) if self._json else f"{at} {said}")
            if text:
                self._handler.handle(logging.makeLogRecord({"msg": "\n".join(text)}))
        except Exception:  # a full disk must not end the thread
            log.exception("the access log cannot be written")


def as_json(record: RequestRecord, cost_usd: float | None, trace_id: str) -> str:
    """A request as an object."""
    tokens = record.tokens
    found: dict[str, Any] = {
        "at": moment(record.started_at), "request_id": record.request_id, "caller_id": record.caller_id,
        "trace_id": trace_id, "tenant": record.tenant, "key_id": record.key_id, "endpoint": record.endpoint,
        "model": record.model, "adapter": record.adapter, "preset": record.preset, "code": record.code,
        "outcome": record.outcome, "stream": record.stream, "duration_s": round(record.duration_s, 4),
        "ttft_s": None if record.ttft_s is None else round(record.ttft_s, 4),
        "prompt_tokens": tokens.prompt if tokens else None, "cached_tokens": tokens.cached if tokens else None,
        "completion_tokens": tokens.completion if tokens else None, "cost_usd": cost_usd,
    }
    return json.dumps({k: v for k, v in found.items() if v not in ("", None)})


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
