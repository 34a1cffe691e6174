"""`flotilla usage` and `flotilla cost`: who used what, what it cost, and whether it adds up."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Annotated

import typer

from serving.cli.output import as_json, console, money, settings, table
from serving.cli.run import Json
from serving.errors import ConfigError
from serving.fleet.money import usd
from serving.fleet.records import BUCKETS
from serving.ledger import sums
from serving.ledger.store import Ledger

cost = typer.Typer(help="What the replicas' time has cost and where it went.")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def usage(
    since: Annotated[str | None, typer.Option(help="Only requests begun in the last 30m, 12h, 7d ….")] = None,
    json: Json = False,
) -> None:
    """Show requests, tokens and direct cost by tenant and model."""
    begin = 0.0
    if since is not None:
        found = re.fullmatch(r"(\d+)([smhd])", since)
        if not found:
            raise ConfigError(f"--since {since!r}: write a number and s, m, h or d, for example 12h")
        begin = time.time() - int(found[1]) * _UNITS[found[2]]
    rows = sums.usage(Ledger.open(settings().ledger_path), begin)
    if json:
        as_json([asdict(r) | {"cost_usd": usd(r.nanousd)} for r in rows])
        return
    table(["tenant", "model", "requests>", "errors>", "aborted>", "prompt>", "cached>", "output>", "cost>"],
          [(r.tenant, r.model or "(none)", r.requests, r.errors, r.aborted, r.prompt_tokens, r.cached_tokens,
            r.completion_tokens, money(usd(r.nanousd))) for r in rows])


@cost.callback(invoke_without_command=True)
def show(context: typer.Context, json: Json = False) -> None:
    """Show, per model, the bill of its replicas and how it splits; what a request and a million tokens cost."""
    if context.invoked_subcommand:
        return
    ledger = Ledger.open(settings().ledger_path)
    models = sums.totals(ledger, time.time()).models()
    books = sums.reconcile(ledger)
    if json:
        as_json({"models": {n: _model(m) for n, m in models.items()}, "bill_nanousd": books.bill_nanousd,
                 "residual_nanousd": books.residual_nanousd})
        return
    shown = [b for b in BUCKETS if b != "overhead" or any(m.nanousd[b] for m in models.values())]
    table(["model", "requests>", *(f"{b.partition('_')[0]}>" for b in shown), "bill>"],
          [(n, m.requests, *(money(usd(m.nanousd[b])) for b in shown), money(usd(m.bill_nanousd)))
           for n, m in models.items()], title="Where the replicas' price went")
    if running := sum(m.running_nanousd for m in models.values()):
        console.print(f"of which {money(usd(running))} for requests under way", style="dim")
    console.print()
    table(["model", "direct>", "+ waste>", "loaded>", "direct/Mtok>", "loaded/Mtok>"],
          [(n, *(money(_per(v, m.requests)) for v in _bases(m)),
            money(_per(_bases(m)[0] * 1e6, _tokens(m))), money(_per(_bases(m)[2] * 1e6, _tokens(m))))
           for n, m in models.items()], title="What a request cost (loaded: with idle and cold start)")
    word = "[green]adds up[/]" if books.residual_nanousd == 0 else "[red]does not add up[/]"
    console.print(f"\nbill {money(usd(books.bill_nanousd))} = requests {money(usd(books.requests_nanousd))} + idle "
                  f"{money(usd(books.idle_nanousd))} + cold start {money(usd(books.cold_start_nanousd))}: {word}, "
                  f"residual {books.residual_nanousd} nano-USD", highlight=False, soft_wrap=True)


@cost.command()
def reconcile(json: Json = False) -> None:
    """Bill every replica's time anew and hold the books against it. Exits with 1 when the residual is not 0."""
    found = sums.reconcile(Ledger.open(settings().ledger_path))
    if json:
        as_json(asdict(found))
    else:
        console.print(f"residual {found.residual_nanousd} nano-USD over {found.replicas} replicas and "
                      f"{found.charged_requests} charged requests; bill {found.bill_nanousd} nano-USD", highlight=False)
        for replica in found.wrong_replicas:
            console.print(f"[red]replica {replica} does not add up[/]")
    if found.residual_nanousd:
        raise typer.Exit(1)


def _bases(m: sums.ModelSums) -> tuple[float, float, float]:
    """USD: direct; direct and waste; everything."""
    direct = m.nanousd["direct"]
    return usd(direct), usd(direct + m.nanousd["waste"]), usd(m.bill_nanousd)


def _tokens(m: sums.ModelSums) -> int:
    return m.tokens.prompt + m.tokens.completion


def _per(amount: float, count: int) -> float | None:
    return amount / count if count else None


def _model(m: sums.ModelSums) -> dict[str, object]:
    direct, waste, loaded = _bases(m)
    return {
        "requests": m.requests, "tokens": asdict(m.tokens), "nanousd": m.nanousd, "running_nanousd": m.running_nanousd,
        "bill_nanousd": m.bill_nanousd, "replica_seconds": {"cold_start": m.cold_ns / 1e9, "idle": m.idle_ns / 1e9,
                                                           "busy": m.busy_ns / 1e9},
        "cost_per_request_usd": {"direct": _per(direct, m.requests), "direct_and_waste": _per(waste, m.requests),
                                 "fully_loaded": _per(loaded, m.requests)},
        "cost_per_mtok_usd": {"direct": _per(direct * 1e6, _tokens(m)),
                              "direct_and_waste": _per(waste * 1e6, _tokens(m)),
                              "fully_loaded": _per(loaded * 1e6, _tokens(m))},
    }
