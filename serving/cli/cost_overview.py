"""`flotilla cost`: the bill, how it splits, and what a request cost on three bases and at three APIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from serving.cli.cost_args import FOREVER, Known, shown_span
from serving.cli.output import as_json, console, table
from serving.costs import figures
from serving.costs.figures import DASH, dollars, exact, money, per
from serving.costs.spread import overheads
from serving.fleet.money import usd
from serving.fleet.records import BUCKETS, Bucket, StepFit
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.ledger.sums import CostRow, Dimension, ModelSums, Totals

_ROLE_HEADS = {"same_model_hosted": "hosted", "cheapest_proprietary": "cheapest", "frontier": "frontier"}
_HEADS = {"direct": "direct", "waste": "waste", "idle": "idle", "cold_start": "cold", "overhead": "overhead"}
_COLUMNS: dict[str, tuple[Bucket, ...]] = {  # of a cut by two: what fits 80 columns
    "direct": ("direct",), "waste": ("waste",), "idle+cold": ("idle", "cold_start"), "over": ("overhead",),
}


def show(ledger: Ledger, known: Known, now: float, json: bool) -> None:
    """The overview."""
    totals = sums.totals(ledger, now)
    books = sums.reconcile(ledger)
    models = totals.models()
    over = overheads({name: m.bill_nanousd for name, m in models.items()})
    if json:
        as_json({"models": {n: model_json(m, known.roles(n), totals, over.get(n, 0)) for n, m in models.items()},
                 "bill_nanousd": books.bill_nanousd, "allocated_nanousd": books.allocated_nanousd,
                 "residual_nanousd": books.residual_nanousd,
                 "price_book": {"version": known.book.version, "origin": known.book.origin} if known.book else None,
                 "idle_policy": known.fleet.costs.idle if known.fleet else None})
        return
    if not models:
        console.print("the ledger holds no costs yet: start a fleet with `flotilla up`")
        return
    shown = [b for b in BUCKETS if b != "overhead" or any(m.nanousd[b] for m in models.values())]
    text = figures.aligned(m.bill_nanousd for m in models.values())
    heading("Where the bill went, USD")
    table(["model", "requests>", *(f"{_HEADS[b]}>" for b in shown), "bill>"],
          [(n or "(fleet)", m.requests, *(text(m.nanousd[b] + (m.running_nanousd if b == "direct" else 0))
                                          for b in shown), text(m.bill_nanousd)) for n, m in models.items()])
    if running := sum(m.running_nanousd for m in models.values()):
        console.print(f"of which {money(running)} for requests under way", style="dim")
    served = {n: (m, bases(m, over[n])) for n, m in models.items() if n}
    console.print()
    heading("What a request cost (loaded: with idle, cold start and overhead)")
    table(["model", "direct>", "+ waste>", "loaded>", "direct/Mtok>", "loaded/Mtok>"],
          [(n, *(dollars(per(v, m.requests)) for v in amounts), *(dollars(_per_mtok(amounts[i], m)) for i in (0, 2)))
           for n, (m, amounts) in served.items()])
    console.print()
    heading("The same tokens at an API, per request")
    table(["model", "loaded>", *(f"{_ROLE_HEADS[r]}>" for r in figures.ROLES)],
          [row for n, (m, amounts) in served.items() for row in _against(n, m, amounts[2], known.roles(n))])
    _footnotes(known, totals)
    word = "[green]adds up[/]" if books.residual_nanousd == 0 else "[red]does not add up[/]"
    also = f" + overhead {money(books.overhead_nanousd)}" if books.overhead_nanousd else ""
    console.print(f"\nbill {money(books.bill_nanousd)} = requests {money(books.requests_nanousd)} + idle "
                  f"{money(books.idle_nanousd)} + cold start {money(books.cold_start_nanousd)}{also}: {word}, "
                  f"residual {books.residual_nanousd} nano-USD", highlight=False)
    left = books.idle_nanousd + books.cold_start_nanousd - books.allocated_nanousd
    console.print(f"{money(books.allocated_nanousd)} of idle and cold start is charged to requests, {money(left)} is "
                  "not", style="dim", highlight=False)


def heading(text: str) -> None:
    """A table's title: a line of its own, as wide as the terminal and not as the table."""
    console.print(text, style="italic", highlight=False)


def _against(name: str, m: ModelSums, loaded_nanousd: int, roles: dict[str, str]) -> list[tuple[str, ...]]:
    """Two lines: amounts per request, and what we save or lose against each."""
    loaded = per(loaded_nanousd, m.requests)
    theirs = {role: per(m.compared[api], m.requests) for api, role in roles.items() if api in m.compared}
    amounts = [dollars(theirs.get(role)) for role in figures.ROLES]
    verdicts = [figures.verdict(figures.saving(loaded, theirs.get(role))) for role in figures.ROLES]
    return [(name, dollars(loaded), *amounts), ("", "", *("" if v == DASH else v for v in verdicts))]


def _footnotes(known: Known, totals: Totals) -> None:
    console.print()
    for name in sorted({s.model for s in totals.replicas}):
        if roles := known.roles(name):
            console.print(f"{name}: " + ", ".join(f"{_ROLE_HEADS[r]} {api}" for api, r in roles.items()), style="dim",
                          highlight=False)
    if known.book:
        console.print(f"price book {known.book.version}", style="dim", highlight=False)
    else:
        console.print(f"comparators are not known: {known.why}", style="dim", highlight=False)
    if noise := known.noise():
        console.print(noise, style="yellow", highlight=False)
    for name, variant, fit in fits(totals):
        console.print(f"step model of {name} on {variant}: {fit_words(fit)}", style="dim", highlight=False)


def fits(totals: Totals) -> list[tuple[str, str, StepFit | None]]:
    """The step model of each (model, variant): of its replica that has learned from most steps."""
    best: dict[tuple[str, str], StepFit | None] = {}
    for source in totals.replicas:
        key, fit = (source.model, source.record.variant), source.record.fit
        old = best.setdefault(key, fit)
        if fit and (old is None or fit.steps > old.steps):
            best[key] = fit
    return [(model, variant, fit) for (model, variant), fit in sorted(best.items())]


def fit_words(fit: StepFit | None) -> str:
    """How good a step model is, in words."""
    if fit is None:
        return "no fit yet, steps are shared by assumed coefficients"
    error = figures.percent(fit.error_ratio) if fit.error_ratio is not None else "not known yet"
    return f"fitted on {fit.steps:,} steps, mean error {error}"


def bases(m: ModelSums, overhead: int = 0) -> tuple[int, int, int]:
    """Nano-USD: direct; direct and waste; everything. Work under way counts in the last one only.

    `overhead`: the model's part of what the fleet costs beside its replicas.
    """
    direct = m.nanousd["direct"]
    return direct, direct + m.nanousd["waste"], m.bill_nanousd + overhead


def model_json(m: ModelSums, roles: dict[str, str], totals: Totals, overhead: int) -> dict[str, Any]:
    """One model for programs."""
    direct, waste, loaded = bases(m, overhead)
    names = ("direct", "direct_and_waste", "fully_loaded")
    ours = per(loaded, m.requests)
    return {
        "requests": m.requests, "unfinished": m.unfinished, "tokens": asdict(m.tokens), "nanousd": m.nanousd,
        "running_nanousd": m.running_nanousd, "allocated_nanousd": m.allocated_nanousd, "bill_nanousd": m.bill_nanousd,
        "replica_seconds": {"cold_start": m.cold_ns / 1e9, "idle": m.idle_ns / 1e9, "busy": m.busy_ns / 1e9},
        "cost_per_request_usd": dict(zip(names, (per(v, m.requests) for v in (direct, waste, loaded)), strict=True)),
        "cost_per_mtok_usd": dict(zip(names, (_per_mtok(v, m) for v in (direct, waste, loaded)), strict=True)),
        "compared": {api: {"role": roles.get(api, ""), "nanousd": nanousd, "usd_per_request": per(nanousd, m.requests),
                           "saving": figures.saving(ours, per(nanousd, m.requests))}
                     for api, nanousd in sorted(m.compared.items())},
        "step_models": {variant: asdict(fit) if fit else None
                        for name, variant, fit in fits(totals) if name == m.model},
    }


def _per_mtok(nanousd: int, m: ModelSums) -> float | None:
    tokens = m.tokens.prompt + m.tokens.completion
    return usd(nanousd) * 1e6 / tokens if tokens else None


def show_cut(ledger: Ledger, by: Sequence[Dimension], begin: float, end: float, json: bool) -> None:
    """The bill by `by`; rows add up to it, and a last line says so."""
    rows = sums.costs(ledger, by, begin, end)
    total = sum(r.total_nanousd for r in rows)
    unlimited = begin <= 0 and end >= FOREVER
    bill = sums.reconcile(ledger).bill_nanousd if unlimited else None
    if json:
        as_json({"rows": [_row_json(r) for r in rows], "total_nanousd": total, "bill_nanousd": bill})
        return
    heading(f"The bill by {' and '.join(by)}, {shown_span(begin, end)}, USD")
    text = figures.aligned(r.total_nanousd for r in rows)
    columns = _columns(by, rows)
    table([*by, "requests>", *(f"{head}>" for head in columns), "sum>"],
          [(*_keys(r), r.requests or "", *(text(sum(r.nanousd[b] for b in of)) for of in columns.values()),
            text(r.total_nanousd)) for r in rows])
    said = f"\nsum of {len(rows)} rows {exact(total)} USD"
    if bill is not None:
        said += " = [green]the bill[/]" if bill == total else f": [red]not the bill[/], {exact(bill)} USD"
    console.print(said, highlight=False)


def _columns(by: Sequence[Dimension], rows: Sequence[CostRow]) -> dict[str, tuple[Bucket, ...]]:
    """Columns of money: every bucket that has some; fewer when the keys take the room."""
    if "bucket" in by or len(by) > 2:
        return {}
    of: dict[str, tuple[Bucket, ...]] = {_HEADS[b]: (b,) for b in BUCKETS} if len(by) == 1 else _COLUMNS
    return {head: buckets for head, buckets in of.items() if any(r.nanousd[b] for r in rows for b in buckets)}


def _keys(row: CostRow) -> list[str]:
    none = {"tenant": "(no one)", "model": "(fleet)", "variant": "(fleet)", "adapter": "(none)", "preset": "(none)"}
    return [value.replace("_", " ") if name == "bucket" else value or none.get(name, "") for name, value in
            row.keys.items()]


def _row_json(row: CostRow) -> dict[str, Any]:
    return {"keys": row.keys, "nanousd": row.nanousd, "total_nanousd": row.total_nanousd,
            "total_usd": exact(row.total_nanousd), "allocated": row.allocated, "requests": row.requests,
            "unfinished": row.unfinished, "tokens": asdict(row.tokens), "compared": row.compared}
