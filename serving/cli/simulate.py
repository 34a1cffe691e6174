"""`flotilla simulate`: what a policy would have done with a trace's traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli import evaluate, simulated
from serving.cli.output import as_json, console, table
from serving.cli.run import Json
from serving.errors import ConfigError
from serving.fleet.autoscaling.spec import ScalingSpec
from serving.fleet.catalogue import load
from serving.fleet.loading import LoadingPolicy

ProfilesFile = Annotated[Path | None, typer.Option(help="Engine profiles by model (YAML). What it lacks is by the "
                                                        "roofline of the catalogue entry.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="The model or route of rows that name none.", show_default=False)]
NodeS = Annotated[float, typer.Option(help="Seconds until a new node is there.", min=0)]
Seed = Annotated[int, typer.Option(help="Of failures and of what is drawn.", min=0)]


def simulate(
    fleet: Annotated[Path, typer.Argument(help="Fleet file: models, promises, prices, replicas.min and max.")],
    trace: Annotated[Path | None, typer.Option(help="Scenario (YAML), trace file, or folder of ServeGen's chunks.",
                                               show_default=False)] = None,
    profiles: ProfilesFile = None,
    policy: Annotated[str, typer.Option(help=f"Who decides: {', '.join(simulated.RULES)}.")] = "ours",
    model: Model = None,
    target: Annotated[float, typer.Option(help="ray-default: ongoing requests per replica; queue: waiting ones; hpa: "
                                               "share of time in steps. 0: their own defaults.", min=0)] = 0.0,
    node_s: NodeS = 0.0,
    seed: Seed = 0,
    mtbf_h: Annotated[float | None, typer.Option(help="Mean hours until a replica fails.", min=0.01)] = None,
    reclaim_h: Annotated[float | None, typer.Option(help="Mean hours until a spot node is reclaimed.",
                                                    min=0.01)] = None,
    evaluate_: Annotated[bool, typer.Option("--evaluate", help="Compare the policies instead: each tuned on the first "
                                            "half of every trace, told on the second.")] = False,
    traces: Annotated[Path, typer.Option(help="With --evaluate: folder of traces. The excerpts that are here by "
                                              "default are too short; name one with whole files.")] = evaluate.EXCERPTS,
    replicas: Annotated[float, typer.Option(help="With --evaluate: traces are repeated until they need about so "
                                                 "many.", min=0.1)] = 8.0,
    jobs: Annotated[int, typer.Option(help="With --evaluate: traces at a time, each in a process.", min=1)] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="With --evaluate: fewer settings.")] = False,
    json: Json = False,
) -> None:
    """Replicas, GPU-hours, cost and promises kept, had this policy served that traffic. An estimate by engine profiles.

    The first run compiles the simulator for about a minute and keeps the code.
    """
    from serving.simulator.simulate import simulate as run
    from serving.simulator.world import Chances

    found = load(fleet)
    if evaluate_:
        evaluate.evaluate(fleet, found, traces, profiles, model, replicas, node_s, seed, quick, jobs, json)
        return
    if trace is None:
        raise ConfigError("--trace is missing: name a scenario, a trace file, or a folder of ServeGen's chunks (or say "
                          "--evaluate)")
    simulated.rule_of(policy, target, ScalingSpec())  # a wrong name is told before the trace is read
    known = simulated.read_profiles(profiles)
    asked = simulated.traffic_of(trace, found, model, seed)
    used = {member: simulated.profile_of(found, fleet, member, known) for name in asked
            for member in found.answering(name)}
    services = {name: (simulated.service(found, name, used, simulated.rule_of(
        policy, target, found.models[found.answering(name)[0]].scaling), node_s), asked[name]) for name in asked}
    simulated.compile_once()
    loading = LoadingPolicy(found.costs.max_loading, found.costs.window_h * 3_600)
    purses, cap = simulated.purses(found, asked)
    outcomes = run(services, Chances(seed, mtbf_h, reclaim_h), purses, cap, loading=loading)
    told = {"policy": policy, "trace": str(trace), "seed": seed,
            "profiles": {name: profile.model_dump() for name, profile in used.items()},
            "models": {name: figures(outcome, found.answering(name)) for name, outcome in outcomes.items()}}
    if json:
        as_json(told)
        return
    table(["model", "requests>", "kept all>", "TTFT ms\np50>", "p95>", "TPOT ms\np50>", "p95>", "GPU-h>", "USD>"],
          [
        (name, f"{m['requests']:,}", f"{m['attainment']:.1%}", _ms(m["ttft_ms"]["p50"]), _ms(m["ttft_ms"]["p95"]),
         _ms(m["tpot_ms"]["p50"]), _ms(m["tpot_ms"]["p95"]), f"{m['gpu_hours']:.2f}", f"{m['usd']:.2f}")
        for name, m in told["models"].items()])
    for name, profile in used.items():
        console.print(f"{name}: engine profile {profile.origin}{profile.source and ': '}{profile.source}; an estimate, "
                      "no measurement", highlight=False, soft_wrap=True)


def figures(outcome: Any, members: tuple[str, ...]) -> dict[str, Any]:
    """One model's outcome as JSON, or a route's whose `members` are its variants."""
    m, spent = outcome.measures, outcome.spent

    def quantiles(of: Any) -> dict[str, float | None]:
        found = {f"p{int(q * 100)}": of.quantile(q) for q in (0.5, 0.9, 0.95, 0.99)}
        return {name: None if v is None else v * 1e3 for name, v in found.items()}

    hours = sorted(set(spent.hours_gpu_s) | set(m.hours))
    return {
        "requests": m.total.requests, "failed": m.total.failed, "unanswered": outcome.unanswered,
        "too_long": outcome.too_long, "attainment": m.total.attainment, "ttft_kept": m.total.share("ttft"),
        "tpot_kept": m.total.share("tpot"), "ttft_ms": quantiles(m.ttft), "tpot_ms": quantiles(m.tpot),
        "output_tokens_per_s": m.output_tokens / outcome.length_s, "cached_share":
        m.cached_tokens / m.prompt_tokens if m.prompt_tokens else 0.0, "preempted": m.preempted,
        "gpu_hours": spent.gpu_s / 3_600, "usd": sum(spent.hours_nanousd.values()) / 1e9,
        "replicas_mean": spent.replica_s / outcome.length_s, "replicas_most": spent.most, "starts": spent.starts,
        "failures": spent.failures, "reclaims": spent.reclaims,
        "gpu_hours_by_variant": {m: spent.variants_gpu_s.get(n, 0.0) / 3_600 for n, m in enumerate(members)},
        "reasons": spent.reasons,
        "ledger_nanousd": {k: getattr(outcome.money, k) for k in (
            "direct", "waste", "idle", "cold_start", "unallocated", "total", "residual")},
        "hours": [{"hour": h, "gpu_hours": spent.hours_gpu_s.get(h, 0.0) / 3_600,
                   "usd": spent.hours_nanousd.get(h, 0.0) / 1e9,
                   "requests": m.hours[h].requests if h in m.hours else 0,
                   "attainment": m.hours[h].attainment if h in m.hours else None} for h in hours],
    }


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
