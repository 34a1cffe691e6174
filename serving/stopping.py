"""A request to stop that cannot be lost: it interrupts the main thread again until that has begun to clean up.

Why more than one exception: raised from a signal's handler it may land in a destructor or callback of a library, where
Python prints and swallows it, and whatever was under way would go on for ever.
"""

from __future__ import annotations

import signal
from typing import Any

_AGAIN_S = 1.0


class StopRequest:
    """Turns SIGTERM into SystemExit in the main thread. Uses SIGALRM and its timer."""

    def __init__(self) -> None:
        self._asked = self._leaving = False
        signal.signal(signal.SIGALRM, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, frame: Any) -> None:
        if self._leaving:
            return
        if not self._asked:
            self._asked = True
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        elif number == signal.SIGTERM:
            return  # the timer sees to it
        raise SystemExit(0)

    def leaving(self) -> None:
        """The main thread cleans up now; nothing interrupts it any more."""
        self._leaving = True
        signal.setitimer(signal.ITIMER_REAL, 0)
