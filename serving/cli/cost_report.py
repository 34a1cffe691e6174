"""`flotilla cost report`: where the money went, as one page to look at."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.cost_args import FOREVER, FleetOption, Known, Since, Until, ledger, shown_span, span
from serving.cli.cost_overview import fit_words
from serving.cli.output import console
from serving.costs import figures, files
from serving.costs.page import Elsewhere, Even, Page, Part, render
from serving.costs.spread import overheads
from serving.economics import Found, gather
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.ledger.sums import CostRow


def report(
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("cost.html"),
    since: Since = None,
    until: Until = None,
    fleet: FleetOption = None,
) -> None:
    """Write one HTML page that opens offline: the bill by model and day, requests against APIs, break-even curves."""
    begin, end = span(since, until)
    page = make(ledger(), Known.read(fleet), begin, end, time.time())
    files.write_text(out, render(page))
    console.print(f"{out}", highlight=False, soft_wrap=True)


def make(book: Ledger, known: Known, begin: float, end: float, now: float) -> Page:
    """Everything that the page says, read off the ledger."""
    models, days = sums.costs(book, ["model"], begin, end), sums.costs(book, ["day"], begin, end)
    unlimited = begin <= 0 and end >= FOREVER
    evens = gather(book, known.fleet, known.book, now, begin, until=end) if known.fleet and known.book else []
    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = [] if known.fleet else [f"Comparators and break-even are not known: {known.why}"]
    models.sort(key=lambda row: (not row.keys["model"], -row.total_nanousd))
    return Page(
        known.fleet.name if known.fleet else "(not known)", shown_span(begin, end), made,
        tuple(_part(r, "model") for r in models), tuple(_part(r, "day") for r in days), _elsewhere(models, known),
        tuple(_even(f) for f in evens), known.book_version(), known.policy(),
        sums.reconcile(book).bill_nanousd if unlimited else None, tuple(notes), known.noise(),
    )


def _part(row: CostRow, name: str) -> Part:
    return Part(row.keys[name] or "Gateways, head, storage", row.nanousd, row.requests)


def _elsewhere(models: list[CostRow], known: Known) -> tuple[Elsewhere, ...]:
    """Mean requests; the fleet's overhead in proportion to what each model's replicas cost."""
    served = [row for row in models if row.keys["model"]]
    more = overheads({row.keys["model"]: row.total_nanousd for row in models})
    order, found = list(figures.ROLES), []
    for row in served:
        roles, count = known.roles(row.keys["model"]), row.requests
        apis = [(name, roles.get(name, ""), figures.per(amount, count) or 0.0) for name, amount in row.compared.items()]
        apis.sort(key=lambda a: (order.index(a[1]) if a[1] in order else len(order), a[0]))
        direct, waste = row.nanousd["direct"], row.nanousd["waste"]
        loaded = row.total_nanousd + more[row.keys["model"]]
        found.append(Elsewhere(row.keys["model"], figures.per(direct, count), figures.per(direct + waste, count),
                               figures.per(loaded, count), tuple(apis) if count else ()))
    return tuple(found)


def _even(found: Found) -> Even:
    if found.even is None or found.shape is None:
        return Even(found.model, "", None, found.missing)
    e, shape = found.even, found.shape
    about = (f"Mean request: prompt {shape.prompt:,.0f} tokens ({shape.cached:,.0f} cached), answer "
             f"{shape.completion:,.0f}. A replica costs {figures.dollars(e.price_usd_per_hour)} an hour, times "
             f"{e.overhead:.3f} for overhead; with {found.max_num_seqs} requests at once it answers "
             f"{e.capacity_per_s:.3g} a second. Step model: {fit_words(found.fit)}.")
    return Even(found.model, about, e)
