"""What the cost commands have in common: which time, which fleet file, and what comparators are for."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from serving import runstate
from serving.cli.output import settings
from serving.costs.explain import POLICIES
from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, load, price_book
from serving.fleet.prices import PriceBook
from serving.ledger.asking import FOREVER, UNITS, instant
from serving.ledger.store import Ledger

Since = Annotated[str | None, typer.Option(help="From when on: 30m, 12h, 7d ago, or a date such as 2026-11-01 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Until when, not included; like --since.")]
FleetOption = Annotated[Path | None, typer.Option(
    "--fleet", help="Fleet file with comparators and policy; default: the running fleet's, or FLOTILLA_FLEET.",
    show_default=False)]


def moment(text: str | None, option: str, otherwise: float) -> float:
    """Unix seconds of what an option says. Raises: ConfigError."""
    if text is None:
        return otherwise
    if found := re.fullmatch(r"(\d+)([smhdw])", text):
        return time.time() - int(found[1]) * UNITS[found[2]]
    try:
        return instant(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r}: write how long ago as a number and s, m, h, d or w (12h), or a moment "
                          "in UTC (2026-11-01, 2026-11-01T12:00)") from None


def span(since: str | None, until: str | None) -> tuple[float, float]:
    """[from, to) in Unix seconds. Raises: ConfigError when there is nothing between them."""
    begin, end = moment(since, "--since", 0.0), moment(until, "--until", FOREVER)
    if begin >= end:
        raise ConfigError(f"--since {since} is not before --until {until}; there is no time between them")
    return begin, end


def shown_span(begin: float, end: float) -> str:
    """A span of time for people."""
    def at(unix_s: float) -> str:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")

    if begin <= 0 and end >= FOREVER:
        return "since the ledger began"
    if end >= FOREVER:
        return f"since {at(begin)} UTC"
    return f"until {at(end)} UTC" if begin <= 0 else f"{at(begin)} to {at(end)} UTC"


def ledger() -> Ledger:
    """The ledger of this process's settings. Raises: LedgerError."""
    return Ledger.open(settings().database)


@dataclass(frozen=True)
class Known:
    """What the fleet file says, as far as it can be read. `why`: why there is none."""

    fleet: Fleet | None = None
    book: PriceBook | None = None
    why: str = ""

    @classmethod
    def read(cls, file: Path | None) -> Known:
        """The named fleet file, else the running fleet's, else the settings'.

        Raises: ConfigError when the named one is wrong; another that cannot be read only makes reports say less.
        """
        own = settings()
        run = runstate.read(own.state_dir)
        path = file or (Path(run.fleet_file) if run and Path(run.fleet_file).is_file() else own.fleet)
        try:
            found = load(path)
            return cls(found, price_book(found, path))
        except ConfigError as error:
            if file is not None:
                raise
            return cls(why=str(error).splitlines()[0])

    def roles(self, model: str) -> dict[str, str]:
        """What each comparator of a model shows, by its name in the ledger."""
        spec = self.fleet.models.get(model) if self.fleet else None
        return {c.name: c.role for c in spec.comparators} if spec else {}

    def all_roles(self) -> dict[str, str]:
        """The same over all models."""
        found: dict[str, str] = {}
        for model in self.fleet.models if self.fleet else ():
            found |= self.roles(model)
        return found

    def policy(self) -> str:
        """Who pays for idle time, in words; empty when that is not known."""
        costs = self.fleet.costs if self.fleet else None
        return POLICIES[costs.idle].format(max_loading=costs.max_loading) if costs else ""

    def noise(self) -> str:
        """What must stand beside figures of models whose weights are random; empty where there are none."""
        run = runstate.read(settings().state_dir)
        real = run.sources if run else {}  # weights that the command line gave instead
        small = [name for name, m in self.fleet.models.items() if m.small_family and name not in real] if (
            self.fleet) else []
        return (f"Random weights: {', '.join(small)}. Figures of such small models say nothing about the real models' "
                "speed, cost or saving; they show that the books add up.") if small else ""

    def book_version(self) -> str:
        """The price book's version for people."""
        return self.book.version if self.book else "not known"
