"""Times only what a subclass adds to its base: the calls it overrides, less what it hands on to `super()`.

Why not a profiler: it slows down what it looks at, and the work in question is a few dozen microseconds among
milliseconds. Here the clock is read only where control passes between the two classes. Knows neither vLLM nor metering.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any

Clock = Callable[[], int]


class OwnTime:
    """A stopwatch that runs while the subclass's own code does. One thread. `clock` gives nanoseconds."""

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self._clock = clock
        self._since, self._sum, self._runs = 0, 0, False

    def turn(self, on: bool) -> bool:
        """Let it run or stand still; returns what it did before."""
        was, self._runs = self._runs, on
        if on and not was:
            self._since = self._clock()
        elif was and not on:
            self._sum += self._clock() - self._since
        return was

    def take(self) -> int:
        """Nanoseconds since the last call of this; to be called while it stands still."""
        found, self._sum = self._sum, 0
        return found


def added(sub: type, base: type) -> list[str]:
    """Methods of `base` that `sub` itself overrides, but for those that Python calls by itself."""
    return [name for name, made in vars(sub).items()
            if isinstance(made, FunctionType) and hasattr(base, name) and not name.startswith("__")]


def timed(sub: type, base: type, own: OwnTime) -> type:
    """A class that does what `sub` does, a direct subclass of `base`, and lets `own` run in what `sub` adds.

    It stands above `sub`, and below it a second class above `base` that catches what `sub` passes to `super()`.
    """
    names = added(sub, base)
    below = type(f"{base.__name__}Below", (base,), {name: _switch(getattr(base, name), own, False) for name in names})
    return type(f"Timed{sub.__name__}", (sub, below), {name: _switch(getattr(sub, name), own, True) for name in names})


def _switch(function: Callable[..., Any], own: OwnTime, on: bool) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = own.turn(on)
        try:
            return function(*args, **kwargs)
        finally:
            own.turn(before)

    return call


class _Base:
    def call(self) -> None:
        """Does nothing."""


class _Sub(_Base):
    def call(self) -> None:
        super().call()


def cost_ns(clock: Clock = time.perf_counter_ns, times: int = 2000) -> float:
    """What the stopwatch counts for a method that adds nothing: its own share in each call, median nanoseconds."""
    own = OwnTime(clock)
    idle = timed(_Sub, _Base, own)()
    found = []
    for _ in range(times):
        idle.call()
        found.append(own.take())
    return float(statistics.median(found))
