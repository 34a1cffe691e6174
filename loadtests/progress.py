"""The progress of a run as the child tells it and the person sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from pydantic import BaseModel, ConfigDict

_PLAIN_EVERY_S = 10.0


class Progress(BaseModel):
    """One progress line of the child; the last one is `final`. Times in seconds since the run's start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    final: bool = False
    complete: bool = False
    elapsed_s: float = 0.0
    started_unix: float = 0.0
    scheduled: int = 0
    arrivals: int = 0
    sent: int = 0
    done: int = 0
    errors: int = 0
    last_ended_s: float = 0.0
    last_arrival_sent_s: float = 0.0
    loop_lag_ms: Mapping[str, Any] = {}
    stopped_by: str | None = None
    lost: tuple[str, ...] = ()
    workers: tuple[Mapping[str, Any], ...] = ()
    """Facts of each worker, as run.json has them; in the last line only."""


class Printer(Protocol):
    """Shows progress to a person."""

    def update(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


def line_of(progress: Progress, duration_s: float) -> str:
    """The one line: elapsed, sent, done, errors, in flight."""
    elapsed = min(progress.elapsed_s, duration_s)
    tail = " (waiting for the last answers)" if progress.elapsed_s > duration_s and not progress.final else ""
    return (
        f"{elapsed:5.0f}/{duration_s:.0f} s  sent {progress.sent}  done {progress.done}  "
        f"errors {progress.errors}  in flight {progress.sent - progress.done}{tail}"
    )


class LivePrinter:
    """One line that is written over, for a terminal."""

    def __init__(self, stream: TextIO, duration_s: float) -> None:
        self._stream, self._duration_s = stream, duration_s

    def update(self, progress: Progress) -> None:
        self._stream.write("\r\x1b[2K" + line_of(progress, self._duration_s))
        self._stream.flush()

    def close(self) -> None:
        self._stream.write("\n")
        self._stream.flush()


class PlainPrinter:
    """A line every ten seconds and one at the end, for logs."""

    def __init__(self, stream: TextIO, duration_s: float) -> None:
        self._stream, self._duration_s = stream, duration_s
        self._next = time.monotonic() + _PLAIN_EVERY_S

    def update(self, progress: Progress) -> None:
        if progress.final or time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN_EVERY_S
            print(line_of(progress, self._duration_s), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class SilentPrinter:
    """Nothing."""

    def update(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


def printer_for(stream: TextIO, duration_s: float, quiet: bool) -> Printer:
    """The printer that fits the stream."""
    if quiet:
        return SilentPrinter()
    return LivePrinter(stream, duration_s) if stream.isatty() else PlainPrinter(stream, duration_s)
