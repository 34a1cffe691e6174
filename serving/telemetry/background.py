"""A value that takes its time, computed by a thread of its own, so that no scrape waits longer than it can."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Run(Generic[T]):
    """One computation."""

    def __init__(self, began: float) -> None:
        self.began, self.over = began, threading.Event()
        self.value: T | None = None
        self.error: Exception | None = None


class Background(Generic[T]):
    """What `compute` gives. It runs at most once at a time, whoever asks. `clock`: seconds."""

    def __init__(self, compute: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._compute, self._clock = compute, clock
        self._lock = threading.Lock()
        self._running: _Run[T] | None = None
        self._last: _Run[T] | None = None

    def fresh(self, wait_s: float) -> T:
        """Compute it, or wait for the computation under way. Raises: what `compute` raises; TimeoutError after
        `wait_s`, and then the computation goes on."""
        run = self._begin()
        if not run.over.wait(wait_s):
            raise TimeoutError(f"not known within {wait_s:g} s")
        if run.error is not None:
            raise run.error
        return run.value  # type: ignore[return-value]

    def latest(self, max_age_s: float) -> T | None:
        """What is known already, without waiting; where it is older, a new computation begins. None: nothing is known,
        or the last computation failed."""
        last = self._last
        if last is None or self._clock() - last.began >= max_age_s:
            self._begin()
        return last.value if last is not None else None

    def _begin(self) -> _Run[T]:
        with self._lock:
            run = self._running
            if run is None:
                run = self._running = _Run[T](self._clock())
                threading.Thread(target=self._go, args=(run,), daemon=True).start()
            return run

    def _go(self, run: _Run[T]) -> None:
        try:
            run.value = self._compute()
        except Exception as error:  # it is told to whoever asks
            log.warning("%s failed: %s", getattr(self._compute, "__name__", "a computation"), error)
            run.error = error
        with self._lock:
            self._running, self._last = None, run
        run.over.set()
