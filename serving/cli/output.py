"""How the command line speaks: tables for people, JSON for programs, errors in one form, and its exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

from serving import errors
from serving.settings import Settings

EXIT: dict[type[errors.FlotillaError], int] = {
    errors.ConfigError: 2,
    errors.FleetRunning: 3,
    errors.FleetNotRunning: 3,
    errors.StartFailed: 4,
    errors.FlotillaError: 1,
}
EXIT_CODES = ("Exit codes: 0 done; 1 the answer is no (books do not add up, a load test failed); 2 wrong arguments or "
              "configuration; 3 a fleet runs already, or none does; 4 the fleet did not start; 130 interrupted.")

_NO_WIDTH = 10_000
console = Console()
stderr = Console(stderr=True)


def settings() -> Settings:
    """This process's settings. Raises: ConfigError."""
    return Settings.read(os.environ)


def complain(error: BaseException) -> None:
    """An error, on stderr."""
    stderr.print("[bold red]error:[/] ", end="")
    stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)


def as_json(value: Any) -> None:
    """A value for programs, on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table for people. A column whose name ends in '>' is right-aligned, one that ends in '!' is never folded. In a
    file or a pipe nothing is, unless COLUMNS says how wide it is."""
    shown = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in columns:
        number = name.endswith(">")
        shown.add_column(name.rstrip(">!"), justify="right" if number else "left", overflow="fold",
                         no_wrap=number or name.endswith("!"))
    for row in rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    if console.is_terminal or "COLUMNS" in os.environ:
        console.print(shown)
        return
    boundless = console.options.update(max_width=_NO_WIDTH)
    needed = Measurement.get(console, boundless, shown).maximum
    lines = console.render(shown, boundless.update(width=max(console.width, needed)))
    console.print(Segments(lines), crop=False)
