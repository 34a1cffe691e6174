"""`flotilla plan`: how many replicas and GPUs a traffic needs within the promises, at what cost, and a fleet file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from serving.cli import planpage, simulated
from serving.cli.output import as_json, console, stderr, table
from serving.cli.run import Json
from serving.cli.simulate import Model, NodeS, ProfilesFile, Seed
from serving.costs import files
from serving.costs.figures import dollars
from serving.errors import ConfigError, nearest
from serving.fleet.catalogue import Fleet, load
from serving.fleet.slos import Slo

if TYPE_CHECKING:
    from serving.simulator.planning import Plan, Way

_PROMISES = ("ttft_ms", "tpot_ms", "goodput")


def plan_(
    fleet: Annotated[Path, typer.Argument(help="Fleet file: models, promises, prices.")],
    trace: Annotated[Path, typer.Option(help="Scenario (YAML), trace file, or folder of ServeGen's chunks.")],
    slo: Annotated[list[str] | None, typer.Option(help="Other promises than the file's: ttft_ms=800,tpot_ms=40,"
                                                       "goodput=0.95, for one model as MODEL:ttft_ms=800; may be "
                                                       "repeated.", show_default=False)] = None,
    profiles: ProfilesFile = None,
    model: Model = None,
    times: Annotated[float, typer.Option(help="How many times the trace's load.", min=0.01)] = 1.0,
    node_s: NodeS = 0.0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the plan: fleet.yaml, plan.json, plan.html.",
                                             show_default=False)] = None,
    json: Json = False,
) -> None:
    """Replicas, GPUs and dollars per model and hour, with what more or less load and other prices would change.

    Two ways are held against each other: as many replicas all the time, and as many as load asks for. An estimate by
    engine profiles. Exits with 1 when a model cannot keep its promises.
    """
    from serving.simulator import planning
    from serving.simulator.traffic import repeated

    found = with_promises(load(fleet), slo or [])
    known = simulated.read_profiles(profiles)
    asked = {name: repeated(of, times, seed) for name, of in simulated.traffic_of(trace, found, model, seed).items()}
    simulated.compile_once()
    told: dict[str, Any] = {"fleet": found.name, "trace": str(trace), "times": times, "seed": seed, "models": {}}
    plans: dict[str, Plan] = {}
    for name, traffic in asked.items():
        if name not in found.models:
            raise ConfigError(f"{name!r} is a route, and a plan is of single models; say --model: "
                              f"{', '.join(found.answering(name))}")
        profile = simulated.profile_of(found, fleet, name, known)
        rule = simulated.rule_of("ours", 0.0, found.models[name].scaling)
        service = simulated.service(found, name, {name: profile}, rule, node_s)
        plans[name] = planning.plan(service, traffic, rule, seed, None if json else say)
        told["models"][name] = _told(plans[name], planning.sensitivity(plans[name], rule, seed=seed),
                                     profile.model_dump())
    told["total"] = {key: sum(m[key] for m in told["models"].values()) for key in ("gpu_hours", "usd")}
    told["kept"] = all(m["kept"] for m in told["models"].values())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        files.write_text(out / "fleet.yaml", fleet_file(fleet, out / "fleet.yaml", plans, told))
        files.write_text(out / "plan.html", planpage.render(told))
        told["files"] = [str(out / name) for name in ("fleet.yaml", "plan.json", "plan.html")]
        import json as json_module

        files.write_text(out / "plan.json", json_module.dumps(told, indent=2) + "\n")
    if json:
        as_json(told)
    else:
        show(told)
    if not told["kept"]:
        raise typer.Exit(1)


def with_promises(found: Fleet, said: list[str]) -> Fleet:
    """The fleet with other promises. Raises: ConfigError."""
    models = dict(found.models)
    for one in said:
        name, colon, rest = one.partition(":")
        names = [name] if colon else list(models)
        if colon and name not in models:
            near = nearest(name, models)
            raise ConfigError(f"--slo {one}: {name!r} is no model of {found.name}; "
                              + (f"did you mean {near!r}?" if near else f"there are: {', '.join(models)}"))
        changes = dict(_promise(one, part) for part in (rest if colon else one).split(","))
        for own in names:
            try:
                slo = Slo.model_validate(models[own].slo.model_dump() | changes)
            except ValueError as error:
                raise ConfigError(f"--slo {one}: {str(error).splitlines()[2].strip()}") from None
            models[own] = models[own].model_copy(update={"slo": slo})
    return found.model_copy(update={"models": models})


def _promise(whole: str, part: str) -> tuple[str, float]:
    key, equals, value = part.strip().partition("=")
    if key not in _PROMISES or not equals:
        raise ConfigError(f"--slo {whole}: {part.strip()!r} is none of {', '.join(f'{p}=NUMBER' for p in _PROMISES)}")
    try:
        return key, float(value)
    except ValueError:
        raise ConfigError(f"--slo {whole}: {value!r} is no number") from None


def _told(of: Plan, loads: list[tuple[float, Way]], profile: dict[str, Any]) -> dict[str, Any]:
    from serving.simulator.planning import PRICES

    way, devices = of.way, of.service.devices[0]
    spent, hours = way.outcome.spent, way.outcome.measures.hours
    slo = of.service.policy.slo
    length_h = way.outcome.length_s / 3_600

    def one(w: Way) -> dict[str, Any]:
        return {"policy": w.policy, "replicas": {"min": w.least, "max": w.most},
                "gpus": {"min": w.least * devices, "max": w.most * devices}, "attainment": w.attainment,
                "gpu_hours": w.outcome.spent.gpu_s / 3_600, "usd": w.usd, "usd_per_hour": w.usd / length_h}

    return one(way) | {
        "kept": of.chosen is not None, "objective": of.objective, "devices_per_replica": devices,
        "variant": of.service.policy.variants[0].name,
        "slo": {"ttft_ms": slo.ttft_ms, "tpot_ms": slo.tpot_ms, "goodput": slo.goodput},
        "requests": way.outcome.measures.total.requests, "too_long": way.outcome.too_long,
        "ways": {name: one(w) for name, w in of.ways.items()},
        "hours": [{"hour": h, "replicas": spent.hours_gpu_s.get(h, 0.0) / devices / min(3_600, _within(h, way)),
                   "gpus": spent.hours_gpu_s.get(h, 0.0) / min(3_600, _within(h, way)),
                   "usd": spent.hours_nanousd.get(h, 0.0) / 1e9,
                   "requests": hours[h].requests if h in hours else 0,
                   "attainment": hours[h].attainment if h in hours else None}
                  for h in range(max(1, int(-(-way.outcome.length_s // 3_600))))],
        "sensitivity": {"load": [{"times": times} | one(w) for times, w in loads],
                        "price": [{"times": times, "usd": way.usd * times} for times in PRICES]},
        "profile": profile}


def _within(hour: int, way: Way) -> float:
    """Seconds of the run in an hour."""
    return max(1.0, way.outcome.length_s - hour * 3_600)


def show(told: dict[str, Any]) -> None:
    """The plan as tables."""
    table(["model", "runs on", "replicas>", "GPUs>", "kept all>", "goal>", "GPU-h>", "USD/h>", "USD>"], [
        (name, m["variant"], _range(m["replicas"]), _range(m["gpus"]), f"{m['attainment']:.1%}",
         f"{m['objective']:.0%}", f"{m['gpu_hours']:.1f}", f"{m['usd_per_hour']:.2f}", f"{m['usd']:.2f}")
        for name, m in told["models"].items()])
    console.print()
    table(["model", "way", "replicas>", "kept all>", "USD>", ""], [
        (name, "always as many" if way == "fixed" else "as load asks for", _range(w["replicas"]),
         f"{w['attainment']:.1%}", f"{w['usd']:.2f}", "chosen" if w["policy"] == m["policy"] and m["kept"] else "")
        for name, m in told["models"].items() for way, w in m["ways"].items()])
    console.print()
    table(["the same plan", "load>", "kept all>", "GPU-h>", "USD>", "", "prices>", "USD>"], [
        (name if index == 0 else "", f"x {row['times']:g}", f"{row['attainment']:.1%}", f"{row['gpu_hours']:.1f}",
         f"{row['usd']:.2f}", "", f"x {price['times']:g}", f"{price['usd']:.2f}")
        for name, m in told["models"].items()
        for index, (row, price) in enumerate(zip(m["sensitivity"]["load"], m["sensitivity"]["price"], strict=True))])
    say_ = console.print
    for name, m in told["models"].items():
        if not m["kept"]:
            say_(f"[red]{name}[/] cannot keep its promises with any number of these replicas: at best "
                 f"{m['attainment']:.1%} of the requests do, and {m['objective']:.0%} must", highlight=False,
                 soft_wrap=True)
        if m["too_long"]:
            say_(f"[yellow]{name}[/]: {m['too_long']:,} requests are longer than the engine takes and count as not "
                 "kept", highlight=False, soft_wrap=True)
        say_(f"{name}: engine profile {m['profile']['origin']}; an estimate, no measurement", highlight=False,
             soft_wrap=True)
    say_(f"together {dollars(told['total']['usd'])} for {told['total']['gpu_hours']:.1f} GPU-hours", highlight=False,
         soft_wrap=True)
    for file in told.get("files", []):
        say_(file, highlight=False, soft_wrap=True)


def _range(of: dict[str, int]) -> str:
    return f"{of['min']}" if of["min"] == of["max"] else f"{of['min']} to {of['max']}"


def fleet_file(source: Path, target: Path, plans: dict[str, Plan], told: dict[str, Any]) -> str:
    """The fleet file of the plan: the source's with replicas, promises and policies as planned; its own words are
    kept, but for comments."""
    raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    for key, default in (("prices", None), ("accelerator_prices", None), ("catalogue", "../catalogue")):
        named = raw.get(key, default)
        if named is not None:
            raw[key] = os.path.relpath((source.parent / named).resolve(), target.parent.resolve())
    for name, of in plans.items():
        way, slo = of.way, of.service.policy.slo
        raw["models"][name] = dict(raw["models"][name])
        own = raw["models"][name]
        own["replicas"] = {"min": way.least, "max": way.most}
        own["slo"] = dict(own.get("slo", {})) | {"ttft_ms": slo.ttft_ms, "tpot_ms": slo.tpot_ms,
                                                 "goodput": slo.goodput}
        own["scaling"] = dict(own.get("scaling", {})) | {"policy": "fixed" if way.policy == "fixed" else "ours"}
    head = (f"# {source.name} as `flotilla plan` sized it for {told['trace']}"
            + (f" at {told['times']:g} times its load" if told["times"] != 1 else "")
            + ".\n# An estimate by engine profiles: hold it against a load test.\n")
    return head + yaml.dump(raw, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=116)


class _Plain(yaml.SafeDumper):
    """Without anchors: each model says what it has."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def say(text: str) -> None:
    """Progress, on a terminal."""
    if stderr.is_terminal:
        stderr.print(f"… {text}", highlight=False)
