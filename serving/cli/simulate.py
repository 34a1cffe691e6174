"""`flotilla simulate`: what a policy would have done with a trace's traffic.

The traffic comes from the load tests' own readers, run as a child (`loadtests.schedule`): serving never imports them.
"""

from __future__ import annotations

import json as json_module
import math
import subprocess
import sys
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.output import as_json, console, stderr, table
from serving.cli.run import Json
from serving.errors import ConfigError
from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.capacity import shortest_ms
from serving.fleet.autoscaling.deciding import Rule
from serving.fleet.autoscaling.hpa import Hpa
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.catalogue import Fleet, load
from serving.fleet.config import read
from serving.fleet.loading import LoadingPolicy

RULES = ("ours", "ray-default", "queue", "hpa")


def simulate(
    fleet: Annotated[Path, typer.Argument(help="Fleet file: models, promises, prices, replicas.min and max.")],
    trace: Annotated[Path, typer.Option(help="Scenario (YAML), trace file, or folder of ServeGen's chunks.")],
    profiles: Annotated[Path, typer.Option(help="Engine profiles by model (YAML).")],
    policy: Annotated[str, typer.Option(help=f"Who decides: {', '.join(RULES)}.")] = "ours",
    model: Annotated[str | None, typer.Option(help="The model of rows that name none.")] = None,
    target: Annotated[float, typer.Option(help="ray-default: ongoing requests per replica; queue: waiting ones; hpa: "
                                               "share of time in steps. 0: their own defaults.", min=0)] = 0.0,
    node_s: Annotated[float, typer.Option(help="Seconds until a new node is there.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of failures and of what is drawn.", min=0)] = 0,
    mtbf_h: Annotated[float | None, typer.Option(help="Mean hours until a replica fails.", min=0.01)] = None,
    json: Json = False,
) -> None:
    """Replicas, GPU-hours, cost and promises kept, had this policy served that traffic. An estimate by engine profiles.

    The first run compiles the simulator for about a minute and keeps the code.
    """
    from serving.simulator import compiled
    from serving.simulator.profile import Profiles
    from serving.simulator.simulate import simulate as run
    from serving.simulator.world import Chances, Service

    rule = _rule(policy, target)
    found = load(fleet)
    known = _profiles(profiles, Profiles)
    asked = _traffic(trace, found, model, seed)
    services = {}
    for name, traffic in asked.items():
        spec = found.models[name]
        profile = known.of(name, found.variant(name))
        variant = Variant(found.variant(name), profile.steps, profile.kv_tokens, profile.max_num_seqs,
                          profile.max_batched_tokens, found.price_nanousd_per_hour(name), spec.replicas.min,
                          spec.replicas.max, profile.start_s, node_s)
        first, token = shortest_ms(variant)
        if first > spec.slo.ttft_ms or token > spec.slo.tpot_ms:
            raise ConfigError(
                f"models.{name}.slo: impossible: a lonely request of one token takes {first:.3g} ms to its first token "
                f"(promised {spec.slo.ttft_ms:g}) and {token:.3g} ms per further one (promised {spec.slo.tpot_ms:g}), "
                "however many replicas there are")
        seats = spec.overload.max_in_flight or max(4, math.ceil(profile.max_num_seqs * 1.25))
        services[name] = (Service(name, Policy(rule, (variant,), spec.slo), (profile,), (seats,), (spec.devices,),
                                  (False,), spec.routing == "prefix", spec.overload.max_wait_s), traffic)
    if not compiled.kept():
        stderr.print("… compiling the simulator, once", highlight=False)
    loading = LoadingPolicy(found.costs.max_loading, found.costs.window_h * 3_600)
    outcomes = run(services, Chances(seed, mtbf_h), loading=loading)
    told = {"policy": policy, "trace": str(trace), "seed": seed,
            "models": {name: figures(outcome) for name, outcome in outcomes.items()}}
    if json:
        as_json(told)
        return
    table(["model", "requests>", "kept all>", "TTFT ms\np50>", "p95>", "TPOT ms\np50>", "p95>", "GPU-h>", "USD>"],
          [
        (name, f"{m['requests']:,}", f"{m['attainment']:.1%}", _ms(m["ttft_ms"]["p50"]), _ms(m["ttft_ms"]["p95"]),
         _ms(m["tpot_ms"]["p50"]), _ms(m["tpot_ms"]["p95"]), f"{m['gpu_hours']:.2f}", f"{m['usd']:.2f}")
        for name, m in told["models"].items()])
    console.print(f"by engine profiles: {', '.join(sorted({known.of(n, found.variant(n)).origin for n in asked}))}; "
                  "an estimate, no measurement", highlight=False, soft_wrap=True)


def figures(outcome: Any) -> dict[str, Any]:
    """One model's outcome as JSON."""
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
        "failures": spent.failures, "reasons": spent.reasons,
        "ledger_nanousd": {k: getattr(outcome.money, k) for k in (
            "direct", "waste", "idle", "cold_start", "unallocated", "total", "residual")},
        "hours": [{"hour": h, "gpu_hours": spent.hours_gpu_s.get(h, 0.0) / 3_600,
                   "usd": spent.hours_nanousd.get(h, 0.0) / 1e9,
                   "requests": m.hours[h].requests if h in m.hours else 0,
                   "attainment": m.hours[h].attainment if h in m.hours else None} for h in hours],
    }


def _rule(name: str, target: float) -> Rule:
    if name not in RULES:
        raise ConfigError(f"--policy {name!r}: choose one of {', '.join(RULES)}")
    if name == "ours":
        return SloRule()
    if name == "ray-default":
        return RayDefault(target) if target else RayDefault()
    if name == "queue":
        return Queue(target) if target else Queue()
    return Hpa(target) if target else Hpa()


def _profiles(path: Path, kind: Any) -> Any:
    if not path.is_file():
        raise ConfigError(f"--profiles {path}: there is no such file")
    return read(path, kind)


def _traffic(trace: Path, found: Fleet, model: str | None, seed: int) -> dict[str, Any]:
    from serving.simulator.traffic import traffic

    command = [sys.executable, "-m", "loadtests.schedule", str(trace), "--seed", str(seed)]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise ConfigError(said.stderr.strip().removeprefix("loadtests: ") or f"{trace}: cannot be read")
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    names = found.callable_names()
    for line in said.stdout.splitlines():
        row = json_module.loads(line)
        asked = row["model"] or model or (next(iter(found.models)) if len(found.models) == 1 else "")
        name = names.get(asked, asked).partition(":")[0]
        if name not in found.models:
            raise ConfigError(f"{trace}: a request for {asked or 'no model'!r}, which is no model of {found.name}; say "
                              f"--model: {', '.join(found.models)}")
        rows[name].append(row)
    length = max((row["at_s"] for those in rows.values() for row in those), default=0.0) + 1.0
    return {name: traffic([r["at_s"] for r in those], [r["input_tokens"] for r in those],
                          [r["output_tokens"] for r in those], length,
                          [r["session"] or zlib.crc32(repr(r["blocks"][:1]).encode()) + n for n, r in enumerate(those)],
                          [r["blocks"] for r in those], max(1, those[0]["block_tokens"]))
            for name, those in rows.items()}


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
