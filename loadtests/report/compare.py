"""`python -m loadtests.report.compare BASE NEW`: has anything become worse? Exits with 1 if it surely has."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.errors import ArgumentError, LoadTestError
from loadtests.files import write_atomically
from loadtests.report.build import read
from loadtests.report.compareoutputs import (
    change_text,
    comparison_junit,
    comparison_markdown,
    interval_text,
    value_text,
)
from loadtests.report.comparing import Comparison, compare_runs, thresholds

_STYLES = {"regression": "bold red", "improvement": "green", "unchanged": "dim", "undecided": "yellow"}
EXIT = {"no regression": 0, "regression": 1, "invalid": 3}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 no regression, 1 a regression, 2 a folder or an argument that cannot be used, 3 one of
    the runs is invalid.
    """
    arguments = _parser().parse_args(argv)
    try:
        limits = thresholds(dict(_pair(text) for text in arguments.threshold))
        found = compare_runs(read(arguments.base), read(arguments.new), limits)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_atomically(arguments.out / "compare.json", found.model_dump_json(indent=2) + "\n")
            write_atomically(arguments.out / "compare.md", comparison_markdown(found))
            write_atomically(arguments.out / "compare.xml", comparison_junit(found))
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"loadtests: --out {arguments.out}: {error.strerror}", file=sys.stderr)
        return ArgumentError.exit_code
    if arguments.json:
        print(found.model_dump_json(indent=2))
    else:
        show(found, Console())
    return EXIT[found.result]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.report.compare", description=__doc__)
    parser.add_argument("base", type=Path, metavar="BASE", help="folder of the run to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="folder of the run that is judged")
    defaults = ", ".join(f"{key}={value:g}" for key, value in thresholds({}).items())
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="FIGURE=SHARE",
        help="how much worse a figure may be, as a share of the base, or of shares as a difference; may be repeated; "
        f"defaults: {defaults}",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write compare.json, compare.md and compare.xml")
    parser.add_argument("--json", action="store_true", help="print compare.json instead of the table")
    return parser


def _pair(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    try:
        if equals:
            return key.strip(), float(value)
    except ValueError:
        pass
    raise ArgumentError(f"--threshold {text}: expected FIGURE=NUMBER, for example ttft_p95=0.2")


def show(found: Comparison, console: Console) -> None:
    """The table, what else differs, and the answer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "figure"):
        table.add_column(name, overflow="fold")
    for name in ("base", "new", "change", "95% interval"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("")
    for one in found.differences:
        style = _STYLES[one.outcome]
        table.add_row(escape(one.scope), one.title, value_text(one, one.base.value), value_text(one, one.new.value),
                      change_text(one), interval_text(one), f"[{style}]{one.outcome}[/]")
    console.print(table)
    for note in found.notes:
        console.print(f"[dim]note:[/] {escape(note)}")
    style = {"no regression": "bold green", "regression": "bold red", "invalid": "bold yellow"}[found.result]
    console.print(f"[{style}]{found.result.upper()}[/]")
    for reason in found.reasons:
        console.print(f"  {escape(reason)}")


if __name__ == "__main__":
    sys.exit(main())
