"""Writing many spooled entries at once: consecutive readings of a meter become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from serving.fleet.records import MeterReading, RequestRecord


class Takes(Protocol):
    """What is needed of a ledger. Writing twice, or in another order, changes nothing."""

    def write_requests(self, records: Iterable[RequestRecord]) -> None:
        """Keep gateway rows. Raises: LedgerError."""
        ...

    def write_reading(self, reading: MeterReading) -> None:
        """Keep a reading. Raises: LedgerError."""
        ...


def write_down(ledger: Takes, entries: Sequence[MeterReading | RequestRecord]) -> None:
    """Write entries of both kinds. Raises: what the ledger raises; some may be written then."""
    if requests := [e for e in entries if isinstance(e, RequestRecord)]:
        ledger.write_requests(requests)
    for reading in merged(e for e in entries if isinstance(e, MeterReading)):
        ledger.write_reading(reading)


def merged(readings: Iterable[MeterReading]) -> list[MeterReading]:
    """The same rows in fewer readings: runs of consecutive numbers of a source become their last, with all rows.

    Only runs without a gap: a row that the last reading leaves out has not changed since then, so it is right under the
    last number; across a gap it might be older than one that is in the ledger already.
    """
    done: list[MeterReading] = []
    runs: dict[str, list[MeterReading]] = {}
    for reading in readings:
        run = runs.setdefault(reading.source.source_id, [])
        if run and reading.number != run[-1].number + 1:
            done.append(_one(run))
            run.clear()
        run.append(reading)
    return done + [_one(run) for run in runs.values()]


def _one(run: list[MeterReading]) -> MeterReading:
    if len(run) == 1:
        return run[0]
    intervals = {row.starts_at: row for reading in run for row in reading.intervals}
    charges = {row.request_id: row for reading in run for row in reading.charges}
    totals = {row.tenant: row for reading in run for row in reading.totals}
    return replace(run[-1], intervals=tuple(intervals.values()), charges=tuple(charges.values()),
                   totals=tuple(totals.values()))
