"""`python -m loadtests.report DIR`: make the report of a run and show the summary.

Writes report.html to read, report.json and report.csv for programs, report.md for a pull request and report.xml (JUnit)
for continuous integration.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtests.errors import LoadTestError
from loadtests.files import write_atomically
from loadtests.report import build, outputs, print_summary, render_html


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 report made (whatever its verdict), 2 the folder has no readable run."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.report", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a run")
    parser.add_argument("--json", action="store_true", help="print report.json instead of the summary")
    parser.add_argument("--quiet", action="store_true", help="write the files and say nothing")
    parser.add_argument("--shown-as", type=Path, metavar="PATH", help="folder to name instead, when DIR will be moved")
    arguments = parser.parse_args(argv)
    try:
        report = build(arguments.folder)
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    document = report.model_dump_json(indent=2) + "\n"
    write_atomically(arguments.folder / "report.json", document)
    write_atomically(arguments.folder / "report.html", render_html(report))
    write_atomically(arguments.folder / "report.csv", outputs.csv_text(report))
    write_atomically(arguments.folder / "report.md", outputs.markdown(report))
    write_atomically(arguments.folder / "report.xml", outputs.junit(report))
    if arguments.json:
        sys.stdout.write(document)
    elif not arguments.quiet:
        print_summary(report, Console())
        print(f"report: {(arguments.shown_as or arguments.folder) / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
