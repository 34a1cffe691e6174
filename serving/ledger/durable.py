"""Rows reach the ledger however long its database is away: directly, or by way of a spool on disk.

Why not simply try again: a try may hang for seconds, memory must not grow, and a process that ends or is killed
meanwhile leaves its rows to others. May not happen in here: what a row means.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.exc import DataError, IntegrityError

from serving.errors import LedgerError
from serving.fleet.records import MeterReading
from serving.ledger.merging import Takes, write_down
from serving.ledger.segments import Entry
from serving.ledger.spool import BATCH, Spool, SpoolStats

log = logging.getLogger(__name__)
Clock = Callable[[], float]
_FIRST_S, _MOST_S = 0.5, 5.0  # pauses between tries while the database is away
_AGAIN_S = 600.0  # after which the database is asked once more for what it has refused
_REFUSALS = 2  # in a row, while the database takes others: then it is this entry's fault
_ADOPT_S = 30.0


def own_spool(root: Path, name: str, limit_bytes: int) -> Spool:
    """A spool for this process in a new folder under `root`. Raises: LedgerError."""
    return Spool(root / f"{name}-{os.getpid()}-{secrets.token_hex(4)}", limit_bytes)


class Breaker:
    """Says when to try again: at once after a success, after a growing pause when tries fail. Clock: seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._pause_s, self._until = clock, 0.0, float("-inf")

    @property
    def away(self) -> bool:
        """Whether the last try has failed."""
        return self._pause_s > 0

    @property
    def tries(self) -> bool:
        """Whether it is time to try."""
        return self._clock() >= self._until

    def worked(self) -> None:
        """A try has worked."""
        self._pause_s, self._until = 0.0, float("-inf")

    def failed(self) -> None:
        """A try has failed."""
        self._pause_s = min(_MOST_S, self._pause_s * 2 or _FIRST_S)
        self._until = self._clock() + self._pause_s


class Outlet:
    """The way to the database, for rows at hand and for those that wait in a spool. For one thread at a time."""

    def __init__(self, ledger: Takes, spool: Spool, clock: Clock) -> None:
        self._ledger, self._spool, self._clock = ledger, spool, clock
        self._breaker = Breaker(clock)
        self._size, self._refusals, self._again_at = BATCH, 0, clock() + _AGAIN_S

    @property
    def tries(self) -> bool:
        """Whether it is time to try the database."""
        return self._breaker.tries

    def write(self, entries: Sequence[Entry]) -> bool:
        """Try to write rows at hand; whether it worked. Does not raise."""
        try:
            write_down(self._ledger, entries)
        except Exception as error:  # whatever it is, the rows must go on to the spool
            self._failed(error)
            return False
        self._worked()
        return True

    def flush(self, effort_s: float) -> bool:
        """Write what waits, for about `effort_s` or until the database fails; whether nothing waits any more.

        Does not raise. An entry that the database refuses while it takes others is set aside, and tried again every ten
        minutes.
        """
        until = self._clock() + effort_s
        if self._spool.refused and self._clock() >= self._again_at:
            self._again_at = self._clock() + _AGAIN_S
            self._spool.again()
        while found := self._peek():
            try:
                write_down(self._ledger, found)
            except Exception as error:
                if not self._takes_others(found, error):
                    return False
            else:
                self._spool.drop(len(found))
                self._size, self._refusals = min(BATCH, self._size * 2), 0
                self._worked()
            if self._clock() >= until:
                break
        return self._spool.empty

    def _peek(self) -> list[Entry]:
        try:
            return self._spool.peek(self._size)
        except OSError as error:
            log.error("%s: what waits cannot be read (%s)", self._spool.folder, error)
            return []

    def _takes_others(self, found: list[Entry], error: Exception) -> bool:
        """Some rows were not taken. Whether that is the fault of one of them; it is looked for by halves."""
        self._size = max(1, len(found) // 2)
        others = (found[-1], found[0]) if len(found) > 1 else (self._spool.second(),)
        if not _of_a_row(error) and not any(self._takes(other) for other in others if other is not None):
            self._failed(error)
            return False
        if len(found) == 1:
            self._refusals += 1
            if self._refusals >= _REFUSALS:
                self._spool.set_aside(error)
                self._refusals = 0
        return True

    def _takes(self, entry: Entry) -> bool:
        try:
            write_down(self._ledger, [entry])
        except Exception:
            return False
        return True

    def _failed(self, error: Exception) -> None:
        if not self._breaker.away:
            log.warning("the ledger takes nothing (%s); rows wait for the ledger in %s", error, self._spool.folder)
        self._breaker.failed()

    def _worked(self) -> None:
        if self._breaker.away:
            log.warning("the ledger is back; %d rows wait in %s", self._spool.entries, self._spool.folder)
        self._breaker.worked()


def _of_a_row(error: Exception) -> bool:
    """Whether an error is about what was to be written, whatever the state of the database."""
    return isinstance(error, ArithmeticError | TypeError | ValueError) or isinstance(
        error.__cause__, DataError | IntegrityError)


class DurableReadings:
    """Writes a meter's readings. Called from one thread at a time.

    A call tries the database unless it has just failed, and gives a backlog about `effort_s`. `clock`: seconds.
    """

    def __init__(self, ledger: Takes, spool: Spool, clock: Clock = time.monotonic, effort_s: float = 0.5) -> None:
        self._spool, self._effort_s = spool, effort_s
        self._outlet = Outlet(ledger, spool, clock)

    def __call__(self, reading: MeterReading) -> None:
        """Keep a reading. Raises: SpoolFull when neither the database nor the spool takes it."""
        if self._outlet.tries and self._outlet.flush(self._effort_s) and self._outlet.write([reading]):
            return
        self._spool.append(reading)

    @property
    def full(self) -> bool:
        """Whether there is no room for another reading while the database is away."""
        return self._spool.full

    def stats(self) -> SpoolStats:
        """What waits."""
        return SpoolStats(self._spool.size_bytes, self._spool.entries)

    def close(self) -> None:
        """Give the spool up; what waits in it is for `adopt`."""
        self._spool.close()


def adopt(root: Path, ledger: Takes, again: bool = False) -> int:
    """Write what dead processes have left in spools under `root`, and remove those that are empty then.

    `again`: also what the database has refused before. Returns: entries written. Does not raise: what cannot be written
    stays for the next time. Several may do it at once.
    """
    done = 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            spool = Spool.left(folder)
        except (LedgerError, OSError) as error:
            log.error("%s: the spool of a dead process cannot be read (%s)", folder, error)
            continue
        if spool is None:
            continue
        try:
            if again:
                spool.again()
            waiting = spool.entries
            Outlet(ledger, spool, time.monotonic).flush(float("inf"))
            done += waiting - spool.entries
            if waiting:
                log.warning("%s: %d of %d rows of a dead process are written", folder, waiting - spool.entries, waiting)
        except OSError as error:
            log.error("%s: the spool of a dead process cannot be read (%s)", folder, error)
        finally:
            spool.close()
    return done


class Adopter:
    """Adopts the spools of the dead, now and then, in a thread of its own. `then`: what to do after that, each time."""

    def __init__(self, root: Path, ledger: Takes, every_s: float = _ADOPT_S,
                 then: Callable[[], object] = lambda: None) -> None:
        self._root, self._ledger, self._every_s, self._then = root, ledger, every_s, then
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-adopter", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        again = True
        while True:
            try:
                adopt(self._root, self._ledger, again)
                self._then()
            except Exception:  # the next time may go better
                log.exception("spools could not be adopted")
            again = False
            if self._stop.wait(self._every_s):
                return
