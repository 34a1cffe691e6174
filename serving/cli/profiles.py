"""`flotilla profile`: engine profiles for the simulator, from a live load test or from data sheets."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli import simulated
from serving.cli.cost_args import ledger
from serving.cli.cost_overview import fits
from serving.cli.output import as_json, console, settings, table
from serving.cli.run import Json
from serving.costs import files
from serving.errors import ConfigError
from serving.fleet import sizing
from serving.fleet.catalogue import Fleet, load
from serving.fleet.records import StepFit
from serving.ledger import sums

if TYPE_CHECKING:
    from serving.simulator.profile import EngineProfile

app = typer.Typer(no_args_is_help=True, help="Engine profiles: what `simulate` and `plan` know of an engine.")
FleetOption = Annotated[Path | None, typer.Option("--fleet", help="Fleet file; default: FLOTILLA_FLEET.",
                                                  show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Write the profiles into this file (YAML) instead of printing them.",
                                          show_default=False)]
_FEWEST = 40  # answered requests of a model


@app.command("roofline")
def roofline_(
    fleet: Annotated[Path, typer.Argument(help="Fleet file.")],
    out: Out = None,
) -> None:
    """Profiles of a fleet's catalogue models by their devices' data sheets: estimates until there is a live run."""
    from serving.simulator.profile import as_text

    found, made, missing = load(fleet), {}, []
    for name in found.models:
        try:
            made[f"{name}@{found.variant(name)}"] = simulated.profile_of(found, fleet, name, None)
        except ConfigError as error:
            missing.append(str(error))
    if not made:
        raise ConfigError("; ".join(missing))
    _give(as_text(made), out)
    for why in missing:
        console.print(f"[yellow]left out[/]  {why}", highlight=False, soft_wrap=True)


@app.command("fit")
def fit_(
    report: Annotated[Path, typer.Argument(help="Folder of a load test's report, with its records.jsonl.")],
    fleet: FleetOption = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Profiles from a live run: the step models that its replicas learned (from the ledger), what else a request takes
    (from the first half of its records), and how well a simulation then tells the other half's medians.

    Exits with 1 when one of them is off by more than 15%.
    """
    from serving.simulator import fitting
    from serving.simulator.profile import as_text

    path = fleet or settings().fleet
    found = load(path)
    records = _records(report)
    totals = sums.totals(ledger(), time.time())
    learned = {(model, variant): fit for model, variant, fit in fits(totals)}
    made: dict[str, EngineProfile] = {}
    told: dict[str, Any] = {}
    simulated.compile_once()
    for name, spec in found.models.items():
        of = fitting.seen([r for r in records if r["model"] == name])
        fit = learned.get((name, found.variant(name)))
        if len(of.sent) < _FEWEST or fit is None:
            told[name] = {"missing": f"{len(of.sent)} answered requests, of which {_FEWEST} are needed"
                          if fit is not None else "its replicas have learned no step model in this ledger"}
            continue
        first, second = of.halves()
        replicas = max(1, spec.replicas.min)
        by_steps = profile_of(found, name, fit, _start_s(totals, name), str(report))
        profile = fitting.calibrated(by_steps, first, replicas)
        made[f"{name}@{found.variant(name)}"] = profile
        told[name] = {"profile": profile.model_dump(),
                      "requests": {"fitted": len(first.sent), "held": len(second.sent)},
                      "validation": {k: asdict(v) | {"error": v.error, "within": v.within}
                                     for k, v in fitting.validated(profile, second, replicas).items()}}
    if not made:
        raise ConfigError(f"{report}: no model can be fitted: "
                          + "; ".join(f"{name}: {m['missing']}" for name, m in told.items()))
    good = all(v["within"] for m in told.values() for v in m.get("validation", {}).values())
    if out is not None or not json:
        _give(as_text(made), out)
    if json:
        as_json({"report": str(report), "limit": fitting.LIMIT, "within": good, "models": told})
    else:
        show(told)
    if not good:
        raise typer.Exit(1)


def show(told: dict[str, Any]) -> None:
    """How near the simulation comes."""
    names = {"ttft_ms": "TTFT p50, ms", "tpot_ms": "TPOT p50, ms", "output_tokens_per_s": "output tokens/s"}
    table(["model", "of the half not fitted to", "live>", "simulated>", "off by>", ""], [
        (name if key == "ttft_ms" else "", names[key], f"{v['live']:,.3g}", f"{v['simulated']:,.3g}",
         f"{v['error']:+.1%}", "" if v["within"] else "too far")
        for name, m in told.items() for key, v in m.get("validation", {}).items()])
    for name, m in told.items():
        if "missing" in m:
            console.print(f"[yellow]left out[/]  {name}: {m['missing']}", highlight=False, soft_wrap=True)


def profile_of(found: Fleet, name: str, fit: StepFit, start_s: float, source: str) -> EngineProfile:
    """The profile of a fleet's model by a live step model; limits are the fleet file's."""
    from serving.simulator.profile import EngineProfile

    spec = found.models[name]
    demand = sizing.demand_of(spec.engine, found.accelerators[spec.accelerator])
    return EngineProfile(
        fixed_s=fit.fixed, token_s=fit.token, attention_s=fit.attention, cache_s=fit.cache,
        kv_tokens=_kv_tokens(found, name), block_tokens=demand.block_size, max_num_seqs=spec.engine.max_num_seqs,
        max_batched_tokens=int(demand.batched), max_model_len=spec.engine.max_model_len, start_s=start_s, origin="fit",
        source=f"{source}: step model learned from {fit.steps:,} steps"
               + (f", mean error {fit.error_ratio:.0%}" if fit.error_ratio is not None else ""))


def _kv_tokens(found: Fleet, name: str) -> int:
    """Tokens of cache by the catalogue's arithmetic; without an entry as many as its seats could ask for."""
    spec, entry = found.models[name], found.entry(name)
    if entry is None or spec.small_family is not None:
        return spec.engine.max_num_seqs * spec.engine.max_model_len
    of = sizing.sized(spec, found.accelerators[spec.accelerator], entry)
    context = min(4_096, spec.engine.max_model_len)
    return max(int(of.fit.blocks.concurrency(of.fit.left, context) * context), spec.engine.max_model_len)


def _start_s(totals: sums.Totals, name: str) -> float:
    """Mean cold start of the model's replicas in the ledger."""
    starts = [s.record.cold_ns / 1e9 for s in totals.replicas if s.model == name and s.record.cold_ns]
    return round(sum(starts) / len(starts), 1) if starts else 60.0


def _records(report: Path) -> list[dict[str, Any]]:
    path = report / "records.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name the folder of a load test's report"
                          ) from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json_module.loads(line))
        except ValueError:
            if number < len(lines):  # a run cut off while writing leaves half a line
                raise ConfigError(f"{path}:{number}: not JSON") from None
    return found


def _give(text: str, out: Path | None) -> None:
    if out is None:
        console.print(text, highlight=False, soft_wrap=True, markup=False, end="")
    else:
        files.write_text(out, text)
        console.print(f"{out}", highlight=False, soft_wrap=True)
