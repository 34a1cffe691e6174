"""One look per tick for all open pages: whoever is slow misses frames, and no one waits for anyone.

No frame is queued: a page that has not taken the last one gets the newest when it is ready. Nobody looks while no page
is open, but for a while after the last one closed, so that a page that is loaded anew finds what was seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

from serving.errors import ConsoleFull

log = logging.getLogger(__name__)
LIMIT = 256  # open pages
_LINGER_S = 300.0


@dataclass(frozen=True)
class Frame:
    """One look, as JSON. `trace`: the little of it that is remembered, for the curves of a page that opens later."""

    whole: bytes
    trace: bytes


class Feed:
    """`look`: the newest frame, in a thread; it may take its time. `history`: how many traces are remembered."""

    def __init__(self, look: Callable[[], Frame], every_s: float, limit: int = LIMIT, linger_s: float = _LINGER_S,
                 history: int = 150, clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._every_s, self._limit, self._linger_s, self._clock = look, every_s, limit, linger_s, clock
        self._traces: deque[bytes] = deque(maxlen=history)
        self._newest: Frame | None = None
        self._number = 0
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._left_at = 0.0
        self._closed = False
        self.open = 0

    @property
    def past(self) -> tuple[bytes, ...]:
        """Traces of the frames so far, oldest first."""
        return tuple(self._traces)

    async def frames(self) -> AsyncGenerator[Frame]:
        """The newest frame, at once where there is one, and then each time that there is a newer one.

        Raises: ConsoleFull, before the first.
        """
        if self.open >= self._limit:
            raise ConsoleFull(f"{self.open} consoles are open, and no more may be; close one")
        self.open += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._tick())
            seen = 0
            while not self._closed:
                if self._newest is None or seen == self._number:
                    await self._next()
                    continue
                seen = self._number
                yield self._newest
        finally:
            self.open -= 1
            self._left_at = self._clock()

    async def _next(self) -> None:
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)  # others wait for it too

    async def _tick(self) -> None:
        begins = self._clock()
        while self.open or self._clock() - self._left_at < self._linger_s:
            try:
                self._newest = await asyncio.to_thread(self._look)
            except Exception:  # pages wait for the next one
                log.exception("a look at the fleet failed")
            else:
                self._number += 1
                self._traces.append(self._newest.trace)
                if self._news is not None and not self._news.done():
                    self._news.set_result(None)
            begins = max(begins + self._every_s, self._clock())
            await asyncio.sleep(begins - self._clock())
        self._newest = None
        self._traces.clear()

    async def close(self) -> None:
        """End the looking, and every page's frames."""
        self._closed = True
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
