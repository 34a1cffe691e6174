"""Load-test reports of this machine, for the page: which there are, and a door to one that opens once.

A report opens in a tab of its own, and tabs send no header: so the page is given a ticket instead of putting its key
into an address. The report is fenced in (`sandbox`): nothing in it can read what the console's tabs keep.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.errors import NoSuchRow

FENCE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; " \
        "frame-ancestors 'none'; sandbox"
_TICKET_S, _TICKETS, _MOST = 60.0, 100, 50
_JSON_BYTES = 20_000_000


@dataclass(frozen=True)
class Report:
    """One report. `at`: when it was written, Unix seconds; `verdict`, `scenario`: as its report.json says, else empty.
    """

    name: str
    at: float
    scenario: str
    verdict: str


class Reports:
    """Those in folders below `root`, as `flotilla loadtest` leaves them. `clock`: monotonic seconds."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._known: dict[tuple[Path, float], Report] = {}
        self._tickets: dict[str, tuple[float, Path]] = {}

    def newest(self) -> list[Report]:
        """The newest ones, newest first. Call it in a thread."""
        files = {path: path.stat().st_mtime for path in self._root.glob("*/report.html") if path.is_file()}
        newest = sorted(files.items(), key=lambda item: (-item[1], item[0].parent.name))[:_MOST]
        self._known = {key: self._known.get(key) or _read(*key) for key in newest}
        return list(self._known.values())

    def ticket(self, name: str) -> str:
        """Opens the report of this name, once. Raises: NoSuchRow."""
        now = self._clock()
        self._tickets = {t: found for t, found in self._tickets.items() if found[0] > now}
        path = next((p for p, _ in self._known if p.parent.name == name), None)
        if path is None or len(self._tickets) >= _TICKETS:
            raise NoSuchRow(f"there is no report {name[:80]!r} among those listed; list them again")
        made = secrets.token_urlsafe(32)
        self._tickets[made] = now + _TICKET_S, path
        return made

    def page(self, ticket: str) -> bytes:
        """The report that a ticket opens. Call it in a thread. Raises: NoSuchRow."""
        until, path = self._tickets.pop(ticket, (0.0, Path()))
        if self._clock() > until:
            raise NoSuchRow("this link has been used or is over; open the report from the console again")
        try:
            return path.read_bytes()
        except OSError as error:
            raise NoSuchRow(f"the report cannot be read: {error.strerror}") from error


def _read(path: Path, at: float) -> Report:
    """What its report.json says of it, as far as that can be read."""
    beside = path.with_name("report.json")
    try:
        told = json.loads(beside.read_bytes()) if beside.stat().st_size <= _JSON_BYTES else {}
        scenario, verdict = str(told["run"]["scenario"]), str(told["verdict"]["result"])
    except (OSError, ValueError, KeyError, TypeError):
        scenario = verdict = ""
    return Report(path.parent.name, at, scenario, verdict)
