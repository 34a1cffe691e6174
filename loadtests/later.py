"""Work that no request waits for, done while no socket has anything to read.

Streams of one engine end in the same step. If each user made its record, its JSON and its next prompt right then, the
requests that follow would leave one after the other, and first tokens that have arrived would be stamped too late:
with eight users in a closed loop by a third of what there was to measure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

Job = Callable[[], None]

#: More than these are not put off: memory must not grow, and a generator at its limit shall show it as lateness.
_MOST = 64
#: A sleep that lets the loop look at its sockets. gevent.sleep(0) does not: it goes through what is runnable already.
A_LOOK_S = 1e-6


class Later:
    """Jobs in order, one whenever the loop is idle; give `run` a greenlet of its own."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._any = Event()

    def do(self, job: Job) -> None:
        """Have it done soon. Where too many wait already, the oldest of them are done now."""
        self._jobs.append(job)
        self._any.set()
        while len(self._jobs) > _MOST:
            self._jobs.popleft()()

    def run(self) -> None:
        """Work until killed. Raises what a job raises; the others stay for `finish`."""
        while True:
            self._any.wait()
            gevent.idle()
            if self._jobs:
                self._jobs.popleft()()
            if not self._jobs:
                self._any.clear()

    def finish(self) -> None:
        """Do what is left, now."""
        while self._jobs:
            self._jobs.popleft()()
