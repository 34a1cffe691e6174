"""`flotilla cost export`: the ledger as a file for whoever audits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.cost_args import FOREVER, FleetOption, Known, Since, Until, ledger, span
from serving.cli.output import as_json, console
from serving.cli.run import Json
from serving.costs import files, focus, plainexport
from serving.costs.figures import exact
from serving.costs.files import Column, Row
from serving.costs.rows import Charge, charges, rates
from serving.fleet.money import NANO
from serving.ledger import sums


class Format(StrEnum):
    """What an export is."""

    focus = "focus"
    csv = "csv"
    parquet = "parquet"


def export(
    out: Annotated[Path, typer.Option(help="The file; with --format focus, one that ends in .parquet is Parquet.")],
    format: Annotated[Format, typer.Option(help="FOCUS 1.3, or a plain table of everything.")] = Format.csv,
    since: Since = None,
    until: Until = None,
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """Write a row per request, and rows for idle time, cold starts and overhead: their sum is the bill.

    Requests belong to the time in which they began, all else to the hour in which it began.
    """
    begin, end = span(since, until)
    book = ledger()
    mean = rates(sums.intervals(book))

    def everything() -> Iterator[Charge]:
        return charges(sums.rows(book, begin, end), sums.intervals(book, begin, end), mean)

    columns: tuple[Column, ...] = plainexport.COLUMNS
    if format is Format.focus:
        known = Known.read(fleet)
        name = known.fleet.name if known.fleet else "flotilla"
        columns, rows = focus.file_columns(), focus.table(everything(), focus.origins(everything()), name)
        amount = "BilledCost"
    else:
        rows, amount = plainexport.table(everything()), "total_usd"
    parquet = format is Format.parquet or (format is Format.focus and out.suffix == ".parquet")
    write: Callable[..., int] = files.write_parquet if parquet else files.write_csv
    summed = _Summed(rows, amount)
    count = write(out, columns, summed)
    bill = sums.reconcile(book).bill_nanousd if begin <= 0 and end >= FOREVER else None
    if json:
        as_json({"file": str(out), "format": format.value, "rows": count, "sum_nanousd": summed.nanousd,
                 "bill_nanousd": bill})
        return
    console.print(f"{out}: {count:,} rows, {exact(summed.nanousd)} USD", highlight=False, soft_wrap=True)
    if bill == summed.nanousd:
        console.print("the sum of the rows is [green]the bill[/]")
    elif bill is not None:
        console.print(f"[yellow]the bill is {exact(bill)} USD now[/]: what runs has gone on costing while rows were "
                      "written; --until takes a time that is over", highlight=False)


class _Summed:
    """Rows that are added up while they pass."""

    def __init__(self, rows: Iterator[Row], column: str) -> None:
        self._rows, self._column = rows, column
        self.nanousd = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            amount = row[self._column]
            assert isinstance(amount, Decimal)
            self.nanousd += int(amount * NANO)
            yield row
