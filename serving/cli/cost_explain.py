"""`flotilla cost explain`: why one request cost what it did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from serving.cli.cost_args import FleetOption, Known, ledger
from serving.cli.output import as_json, console, table
from serving.cli.run import Json
from serving.costs import explain as explaining
from serving.costs import figures
from serving.costs.explain import PARTS, Explanation, Line, OnReplica
from serving.costs.figures import exact, money
from serving.errors import ConfigError
from serving.ledger import sums


def explain(
    request_id: Annotated[str, typer.Argument(help="Flotilla's id (x-flotilla-request-id) or the caller's own.")],
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """Show what a request did, its share of each engine step, what came on top, and what it costs elsewhere."""
    found = sums.request(ledger(), request_id)
    if found is None:
        raise ConfigError(f"no request {request_id!r} in the ledger; its id stands in the answer's "
                          "x-flotilla-request-id, and `flotilla cost export` lists all of them")
    known = Known.read(fleet)
    sources = {s.source_id: s for s in found.sources}
    # a request that saw a price change ran last at the newer one
    prices = {i.source_id: i.price_nanousd_per_hour for i in sorted(found.intervals, key=lambda i: i.starts_at)}
    models = {s.model for s in found.sources}
    roles = {name: role for model in models for name, role in known.roles(model).items()}
    told = explaining.explain(found.request_id, found.request, found.charges, sources, roles, prices)
    if json:
        as_json(_json(told, found.others, known))
    else:
        _show(told, found.others, known)


def _show(told: Explanation, others: tuple[str, ...], known: Known) -> None:
    request = told.request
    console.print(f"[bold]{told.request_id}[/]" + (f"  (the caller's {request.caller_id})" if request and
                                                   request.caller_id else ""), highlight=False)
    if others:
        console.print(f"older requests with the same id of the caller: {', '.join(others)}", style="dim",
                      highlight=False)
    if request:
        at = datetime.fromtimestamp(request.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        asked = " as ".join(filter(None, (request.adapter or request.model, request.preset)))
        console.print(f"{told.tenant}, key {request.key_id}, {asked} {request.endpoint}\n{at}: "
                      f"{request.outcome} ({request.code}) after {figures.seconds(request.duration_s)}",
                      highlight=False)
    else:
        console.print(f"{told.tenant or 'no tenant'}: no gateway has written this request down", highlight=False)
    t = told.tokens
    console.print(f"prompt {t.prompt:,} tokens, {t.cached:,} of them cached; answer {t.completion:,}", highlight=False)
    for replica in told.replicas:
        _show_replica(replica)
    a = told.amounts
    console.print()
    rows = [("its own steps", f"{a.direct:,}", ""), ("waste", f"{a.waste:,}", _wasted(told)),
            ("its part of idle time", f"{a.idle:,}", ""), ("its part of cold starts", f"{a.cold_start:,}", "")]
    table(["what it cost", "nano-USD>", ""], [*rows, ("all of it", f"{a.loaded:,}", f"{exact(a.loaded)} USD")])
    if policy := known.policy():
        console.print(f"idle policy, {policy}", style="dim", highlight=False)
    if told.compared:
        console.print()
        table(["the same tokens at", "", "nano-USD>", "it was"],
              [(c.name, figures.ROLES.get(c.role, c.role), f"{c.nanousd:,}", figures.verdict(c.saving))
               for c in told.compared])
        console.print(f"price book {known.book_version()}", style="dim", highlight=False)
    console.print(f"\n{explaining.sentence(told)}", highlight=False)


def _show_replica(replica: OnReplica) -> None:
    price = f"{money(replica.price_nanousd_per_hour)} an hour" if replica.price_nanousd_per_hour else "price not known"
    console.print(f"\nreplica {replica.source_id}: {replica.model} on {replica.variant}, {price}; {replica.outcome}",
                  highlight=False)
    if replica.lines:
        table(["phase", "steps>", "tokens>", "context>", "sharing>", "time>", "share>", "nano-USD>"],
              [(*_line(line), figures.percent(line.share), f"{line.nanousd:,}") for line in replica.lines])
        parts = {part: sum(line.parts.get(part, 0) for line in replica.lines) for part in PARTS}
        if whole := sum(parts.values()):
            console.print("made up of " + ", ".join(f"{part} {v:,} ({figures.percent(v / whole)})"
                                                    for part, v in parts.items()), highlight=False)
    fit = replica.fit
    words = explaining.METHODS[replica.method]
    if fit and replica.method == "step-shapley-fit":
        error = f", mean error {figures.percent(fit.error_ratio)}" if fit.error_ratio is not None else ""
        words += f" ({fit.steps:,} steps{error})"
    console.print(f"method {replica.method}: {words}", style="dim", highlight=False)


def _line(line: Line) -> tuple[str, ...]:
    return (line.phase, f"{line.steps:,}", f"{line.tokens:,}", figures.quantity(round(line.context, 1)),
            figures.quantity(round(line.sharing, 1)), figures.seconds(line.seconds))


def _wasted(told: Explanation) -> str:
    return explaining.why_waste(told) if told.amounts.waste else ""


def _json(told: Explanation, others: tuple[str, ...], known: Known) -> dict[str, Any]:
    return explaining.plain(told) | {
        "other_request_ids": others, "idle_policy": known.fleet.costs.idle if known.fleet else None,
        "price_book": known.book_version()}
