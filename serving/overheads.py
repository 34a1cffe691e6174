"""Keeps overhead meters going in a process that lives long: a thread that writes their readings down.

The gateway has one for itself; the exporter, of which there is one per fleet, has those of the head node and of
storage. A process that is killed loses at most the time since its last reading. May not happen in here: prices.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self

from serving.fleet.catalogue import Fleet
from serving.fleet.money import PriceLine
from serving.fleet.overhead import OverheadMeter
from serving.fleet.records import MeterReading, SourceRole

log = logging.getLogger(__name__)
Write = Callable[[MeterReading], None]


def meters(fleet: Fleet, roles: Iterable[SourceRole]) -> list[OverheadMeter]:
    """Meters that begin now, of this process alone, at the fleet file's prices.

    None for what costs nothing, but for a gateway: its readings also tell what went unmetered.
    """
    now_ns, now_s = time.monotonic_ns(), time.time()
    prices = {role: fleet.costs.overhead.nanousd_per_hour(role) for role in roles}  # type: ignore[arg-type]
    return [OverheadMeter(f"{role}-{os.urandom(8).hex()}", role, PriceLine.fixed(price), now_ns, now_s)
            for role, price in prices.items() if price or role == "gateway"]


class OverheadKeeper:
    """Writes a reading of each meter every few seconds, from `start` to `close`."""

    def __init__(self, found: Iterable[OverheadMeter], write: Write, every_s: float = 5.0,
                 unmetered: Callable[[], int] = lambda: 0) -> None:
        """`write`: may raise; what it did not take is part of the next reading. `unmetered`: requests so far of which
        this process could keep no row."""
        self._meters, self._write, self._every_s, self._unmetered = list(found), write, every_s, unmetered
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overheads", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def close(self, timeout_s: float = 10.0) -> None:
        """Write the last readings and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        over = False
        while not over:
            self._once(over)
            over = self._stop.wait(self._every_s)
        self._once(over)

    def _once(self, ended: bool) -> None:
        for meter in self._meters:
            reading = meter.reading(time.monotonic_ns(), time.time(), ended, self._unmetered())
            try:
                self._write(reading)
            except Exception as error:  # were this thread to end, its time would be on no bill
                meter.unread(reading)
                log.warning("the ledger took no reading of %s (%s); it is kept and tried again", meter.source_id, error)
