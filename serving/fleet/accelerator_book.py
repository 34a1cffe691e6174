"""The accelerator price book: what devices cost by the hour, where, how rented, since when and by whose word.

A CSV file of dated rows. A later row of the same thing replaces an earlier one from its date on, so that a price change
is one more line, and yesterday keeps yesterday's price.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from serving.errors import ConfigError, nearest
from serving.fleet.money import PriceLine, nanousd

Capacity = Literal["on_demand", "spot"]
COLUMNS = ("accelerator", "provider", "region", "instance_type", "capacity", "usd_per_hour", "devices_per_instance",
           "valid_from", "source")
_NEEDED = ("accelerator", "provider", "capacity", "valid_from", "source")
_MOST_USD = 10_000


@dataclass(frozen=True)
class PriceRow:
    """One line of the book. `usd_per_hour` is of one device; None: not offered from then on. `region` and
    `instance_type` are empty where the price does not depend on them, or where they are not known. `valid_from`: Unix
    seconds. `line`: in the file, from 1."""

    accelerator: str
    provider: str
    region: str
    instance_type: str
    capacity: Capacity
    usd_per_hour: Decimal | None
    devices_per_instance: int | None
    valid_from: float
    source: str
    line: int

    @property
    def of(self) -> tuple[str, str, str, str, str]:
        """What is priced; rows that differ only in date and price share it."""
        return self.accelerator, self.provider, self.region, self.instance_type, self.capacity

    @property
    def since(self) -> str:
        """From when it holds, as text."""
        return when(self.valid_from)

    def __str__(self) -> str:
        place = " ".join(part for part in (self.provider, self.region, self.instance_type, self.capacity) if part)
        price = "not offered" if self.usd_per_hour is None else f"${self.usd_per_hour}"
        return f"{self.accelerator} {place} {price} (line {self.line})"


@dataclass(frozen=True)
class AcceleratorBook:
    """The rows of one file. `name`: the file, for messages; `version`: newest date and a hash of the content."""

    name: str
    version: str
    rows: tuple[PriceRow, ...]

    def of(self, accelerator: str) -> tuple[PriceRow, ...]:
        """The rows of one accelerator. Raises: ConfigError when there is none, with the nearest name."""
        rows = tuple(row for row in self.rows if row.accelerator == accelerator)
        if not rows:
            raise ConfigError(f"{self.name} has no price of {accelerator!r}; "
                              f"{_hint(accelerator, {row.accelerator for row in self.rows})}")
        return rows

    def find(self, accelerator: str, provider: str | None, region: str | None, instance_type: str | None,
             capacity: Capacity) -> tuple[PriceRow, ...]:
        """The rows that price one thing, by date. None: whatever there is, as long as it is one.

        Raises: ConfigError when nothing fits, several things do, or its price is left blank.
        """
        rows = self.of(accelerator)
        if instance_type is not None and not any(row.instance_type == instance_type for row in rows):
            other = next((row.accelerator for row in self.rows if row.instance_type == instance_type), None)
            known = {row.instance_type for row in rows if row.instance_type}
            hint = f"that one has {other}" if other else _hint(instance_type, known)
            raise ConfigError(f"{self.name} has no price of {accelerator} for the instance type {instance_type!r}; "
                              f"{hint}")
        if instance_type is not None:
            rows = tuple(row for row in rows if row.instance_type == instance_type)
        what = f"{accelerator} {instance_type}" if instance_type else accelerator
        if provider is not None:
            rows = self._narrow(rows, "provider", what, provider, (provider,))
            what += f" at {provider}"
        if region is not None:
            # a row without region holds in every region that has no row of its own
            own = any(row.region == region for row in rows)
            rows = self._narrow(rows, "region", what, region, (region,) if own else ("",))
            what += f" in {region}"
        offered = tuple(row for row in rows if row.capacity == capacity)
        if not offered:
            raise ConfigError(f"{self.name} has no {capacity} price of {what}; there is {_some(rows)}")
        if len({row.of for row in offered}) > 1:
            raise ConfigError(f"{self.name} has several {capacity} prices of {what}: {_some(offered)}; say provider, "
                              "region or instance_type")
        for row in offered:
            if row.usd_per_hour is None:
                others = [r for r in self.of(accelerator) if r.usd_per_hour is not None and r.of != row.of]
                there = f"; there is {_some(others)}" if others else ""
                raise ConfigError(f"{self.name}, line {row.line}: {what} is not offered {capacity} from {row.since} "
                                  f"on: the price is blank{there}")
        return tuple(sorted(offered, key=lambda row: row.valid_from))

    def line(self, rows: tuple[PriceRow, ...]) -> PriceLine:
        """The price over time of rows as `find` gives them, nano-USD per device and hour. The first holds before, too.
        """
        changes: list[tuple[float, int]] = []
        for row in rows:
            price = nanousd(row.usd_per_hour or 0)
            if not changes or price != changes[-1][1]:  # the same price read again is no change
                changes.append((row.valid_from if changes else 0.0, price))
        return PriceLine(tuple(changes))

    def _narrow(self, rows: tuple[PriceRow, ...], field: str, what: str, wanted: str,
                values: tuple[str, ...]) -> tuple[PriceRow, ...]:
        found = tuple(row for row in rows if getattr(row, field) in values)
        if not found:
            known = {getattr(row, field) for row in rows} - {""}
            raise ConfigError(f"{self.name} has no price of {what} for the {field} {wanted!r}; {_hint(wanted, known)}; "
                              f"there is {_some(rows)}")
        return found


def parse(text: str, name: str) -> AcceleratorBook:
    """Read a book from CSV text. `name` stands for the file in messages. Lines that begin with # are comments.

    Raises: ConfigError, which names the line, for anything that is no price: every row must be readable, also those
    that no one uses, because a row that is skipped would be a price that is missing later.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1)
             if line.strip() and not line.startswith("#")]
    if not lines or tuple(_cells(lines[0][1])) != COLUMNS:
        where = f"{name}:{lines[0][0]}" if lines else name
        raise ConfigError(f"{where}: not an accelerator price book; its first row must be {','.join(COLUMNS)}")
    rows: dict[tuple[object, ...], PriceRow] = {}
    for number, line in lines[1:]:
        row = _row(_cells(line), number, f"{name}:{number}")
        if (before := rows.get((row.of, row.valid_from))) is not None:
            raise ConfigError(f"{name}:{number}: the same thing has a price from {row.since} on in line {before.line} "
                              "already; keep one, or give the later one a later date")
        rows[row.of, row.valid_from] = row
    newest = max(rows.values(), key=lambda row: row.valid_from, default=None)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return AcceleratorBook(name, f"{newest.since[:10] if newest else 'empty'}-{digest}", tuple(rows.values()))


def when(unix_s: float) -> str:
    """A moment as the book writes it; the beginning of a price line, which holds for all time before, is empty."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if unix_s else ""


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error:  # a cell without end
        return []


def _row(cells: list[str], number: int, where: str) -> PriceRow:
    if len(cells) != len(COLUMNS):
        raise ConfigError(f"{where}: has {len(cells)} columns instead of {len(COLUMNS)} ({', '.join(COLUMNS)}); text "
                          "with commas goes in double quotes")
    row = dict(zip(COLUMNS, cells, strict=True))
    for column in _NEEDED:
        if not row[column]:
            raise ConfigError(f"{where}: {column} is empty")
    if row["capacity"] not in get_args(Capacity):
        raise ConfigError(f"{where}: capacity is {row['capacity']!r}; it must be {' or '.join(get_args(Capacity))}")
    devices = row["devices_per_instance"]
    if devices and not re.fullmatch("[1-9][0-9]{0,3}", devices):
        raise ConfigError(f"{where}: devices_per_instance is {devices!r}; it must be a whole number above 0, or empty")
    if bool(devices) != bool(row["instance_type"]):
        raise ConfigError(f"{where}: instance_type and devices_per_instance belong together; give both or neither")
    return PriceRow(
        row["accelerator"], row["provider"], row["region"], row["instance_type"],
        "spot" if row["capacity"] == "spot" else "on_demand", _usd(row["usd_per_hour"], where),
        int(devices) if devices else None, _unix(row["valid_from"], where), row["source"], number)


def _usd(text: str, where: str) -> Decimal | None:
    if not text:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or not 0 < found <= _MOST_USD:
        raise ConfigError(f"{where}: usd_per_hour is {text!r}; it must be a number of US dollars above 0 and at most "
                          f"{_MOST_USD}, or empty where it is not offered")
    if nanousd(found) != found.scaleb(9):
        raise ConfigError(f"{where}: usd_per_hour is {text!r}; it may have 9 decimals at most")
    return found


def _unix(text: str, where: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.utcoffset() != timedelta(0):
        raise ConfigError(f"{where}: valid_from is {text!r}; it must be a date and time in UTC such as "
                          "2026-11-23T00:00:00Z")
    return found.timestamp()


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"


def _some(rows: Iterable[PriceRow], most: int = 6) -> str:
    found = [str(row) for row in rows]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
