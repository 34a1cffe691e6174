"""How processes write their logs: one line per event, for people or as JSON, and never many of the same.

A line that is about a request carries its id, tenant and model (given as `extra`). May not happen in here: anything
that callers or models say.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TextIO

from serving.fleet.observing import LogSpec

_WINDOW_S = 10.0
_KINDS = 1000  # of lines that are told apart; beyond it the counts begin anew
_ABOUT = ("request_id", "tenant", "model")


def configure(spec: LogSpec, process: str, stream: TextIO | None = None) -> None:
    """Write this process's log to `stream` (default: standard error). `process`: what it is, as gateway."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json(process) if spec.form == "json" else Human(process))
    handler.addFilter(Limit(spec.burst))
    logging.basicConfig(level=spec.level.upper(), handlers=[handler], force=True)


class Limit(logging.Filter):
    """Lets `burst` lines of one kind pass in ten seconds; the next one that passes says how many did not.

    A kind: logger, level and the message before its arguments are put in. `clock`: seconds.
    """

    def __init__(self, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst, self._clock = burst, clock
        self._seen: dict[tuple[str, int, str], list[float]] = {}  # since when, passed, left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        now, kind = self._clock(), (record.name, record.levelno, str(record.msg))
        seen = self._seen.get(kind)
        if seen is None:
            if len(self._seen) >= _KINDS:
                self._seen.clear()
            seen = self._seen[kind] = [now, 0, 0]
        if now - seen[0] >= _WINDOW_S:
            if seen[2]:
                record.left_out = int(seen[2])
            seen[:] = [now, 0, 0]
        if seen[1] >= self._burst:
            seen[2] += 1
            return False
        seen[1] += 1
        return True


def moment(seconds: float) -> str:
    """Unix seconds as RFC 3339 with milliseconds, UTC."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=16)  # lines follow each other closely, and this is most of a line's time
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


class Human(logging.Formatter):
    """`2026-11-25T16:00:00.123Z warning gateway serving.gateway.app: message [flo-… shop qwen]`"""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it where there is one."""
        line = (f"{moment(record.created)} {record.levelname.lower()} {self._process} {record.name}: "
                f"{_one_line(record.getMessage())}")
        if found := [v for k in _ABOUT if (v := getattr(record, k, ""))]:
            line += f" [{' '.join(found)}]"
        if left_out := getattr(record, "left_out", 0):
            line += f" (and {left_out} more of this kind before it)"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class Json(logging.Formatter):
    """One object per line: at, level, process, logger, message, and where they are known request_id, tenant, model,
    left_out, error."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        found: dict[str, Any] = {"at": moment(record.created), "level": record.levelname.lower(),
                                 "process": self._process, "logger": record.name, "message": record.getMessage()}
        found |= {k: v for k in (*_ABOUT, "left_out") if (v := getattr(record, k, ""))}
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Nothing that a message holds may begin a line of its own."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
