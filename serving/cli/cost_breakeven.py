"""`flotilla cost breakeven`: from which utilisation on a model pays, and whether it can be 90% cheaper."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from serving.cli.cost_args import FleetOption, Known, Since, ledger, moment
from serving.cli.output import as_json, console, table
from serving.cli.run import Json
from serving.costs import figures
from serving.costs.breakeven import SAVING, Against, BreakEven
from serving.costs.figures import dollars, percent
from serving.economics import Found, gather
from serving.errors import ConfigError


def breakeven(
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this; may be repeated.")] = None,
    since: Since = None,
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """Show each model's utilisation, where it breaks even with each API, and where 90% is saved, or that it cannot."""
    known = Known.read(fleet)
    if known.fleet is None or known.book is None:
        raise ConfigError(f"break-even needs the fleet file for max_num_seqs and comparators: {known.why}")
    found = gather(ledger(), known.fleet, known.book, time.time(), moment(since, "--since", 0.0), model or ())
    if json:
        as_json({"price_book": known.book_version(), "saving": SAVING, "models": {f.model: _json(f) for f in found}})
        return
    for each in found:
        _show(each)
    console.print(f"price book {known.book_version()}", style="dim", highlight=False)
    if noise := known.noise():
        console.print(noise, style="yellow", highlight=False)
    for text in _ASSUMED:
        console.print(f"- {text}", style="dim", highlight=False)


_ASSUMED = (
    "u: requests answered over what full replicas could have answered in all of their time, cold starts included",
    "u*: u at which a request costs as much as at the API; 90% saved: u at which it costs a tenth",
    "full: max_num_seqs requests at once, all of the mean shape, decoding together while prompts ride along; the KV "
    "cache has room for them; latency at that load may be above what the model promises",
    "times come from the step model fitted to this traffic: far from it they are extrapolated",
    "k: overhead of gateways, head node and storage over the replicas' bill, as it was",
    "at the API: the same mean request at list prices, tokens by the ratio in the fleet file, the same tokens cached",
)


def _show(f: Found) -> None:
    console.print(f"[bold]{f.model}[/]", highlight=False)
    if f.shape:
        console.print(f"  mean request: prompt {f.shape.prompt:,.0f} tokens ({f.shape.cached:,.0f} cached), answer "
                      f"{f.shape.completion:,.0f}; {f.requests:,} requests in {f.replica_hours:,.3g} replica hours",
                      highlight=False)
    if f.even is None:
        console.print(f"  [yellow]no break-even[/]: {f.missing}\n", highlight=False)
        return
    e = f.even
    error = percent(f.fit.error_ratio) if f.fit and f.fit.error_ratio is not None else "not known yet"
    now = dollars(e.usd_at(e.utilisation)) if e.requests_per_s else figures.DASH
    console.print(f"  {dollars(e.price_usd_per_hour)} an hour and replica on {f.variant}, k {e.overhead:.3f}\n"
                  f"  full, {f.max_num_seqs} at once, it answers mu = {e.capacity_per_s:.3g} requests/s; fit error "
                  f"{error}\n  utilisation u [bold]{percent(e.utilisation)}[/]: a request costs {now}; full it would "
                  f"cost {dollars(e.usd_at(1))}", highlight=False)
    table(["against", "API>", "now", "u*>", "90% saved at>"],
          [(f"{a.name}\n  {figures.ROLES.get(a.role, a.role)}", dollars(a.usd_per_request),
            figures.verdict(a.saving_now), even_words(a), saving_words(a)) for a in e.against])
    console.print()


def even_words(a: Against) -> str:
    """u* for people."""
    return figures.DASH if a.breakeven is None else percent(a.breakeven) if a.possible else "impossible"


def saving_words(a: Against) -> str:
    """The utilisation at which the saving holds, for people."""
    return figures.DASH if a.for_saving is None else percent(a.for_saving) if a.saving_possible else "impossible"


def _json(f: Found) -> dict[str, Any]:
    told: dict[str, Any] = {
        "variant": f.variant, "max_num_seqs": f.max_num_seqs, "shape": asdict(f.shape) if f.shape else None,
        "requests": f.requests, "replica_hours": f.replica_hours, "fit": asdict(f.fit) if f.fit else None,
    }
    return told | (_even_json(f.even) if f.even else {"missing": f.missing})


def _even_json(e: BreakEven) -> dict[str, Any]:
    return {
        "price_usd_per_hour": e.price_usd_per_hour, "overhead_factor": e.overhead, "capacity_per_s": e.capacity_per_s,
        "requests_per_s": e.requests_per_s, "utilisation": e.utilisation,
        "usd_per_request": e.usd_at(e.utilisation) if e.requests_per_s else None, "usd_per_request_full": e.usd_at(1),
        "against": [asdict(a) | {"possible": a.possible, "saving_possible": a.saving_possible} for a in e.against],
    }
