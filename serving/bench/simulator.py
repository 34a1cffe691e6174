"""`flotilla bench simulator`: how fast the simulator lives through a day of a large fleet, and in how much memory.

Ten models share the GPUs evenly; arrivals follow a day's wave, lengths are lognormal. Traffic is made while the run
needs it, an hour at a time: what is measured is the simulator and not a trace in memory. One process on one core.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from serving.bench.gateway import machine
from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.loading import LoadingPolicy
from serving.fleet.slos import Slo
from serving.simulator.profile import EngineProfile
from serving.simulator.simulate import simulate
from serving.simulator.traffic import Chunk, Traffic
from serving.simulator.world import Service

DAY_S, GOAL_S, MODELS = 86_400.0, 600.0, 10
# an example of one GPU, not a measurement
ENGINE = EngineProfile(fixed_s=0.012, token_s=5e-5, attention_s=5e-10, cache_s=5e-8, kv_tokens=300_000,
                       max_num_seqs=128, max_batched_tokens=2_048, max_model_len=32_768, start_s=60,
                       source="made up")


@dataclass(frozen=True)
class SimulatorPlan:
    """requests: of the whole day; gpus: of all models; books: whether each request is charged as well."""

    requests: int = 10_000_000
    gpus: int = 1_000
    books: bool = False
    length_s: float = DAY_S
    seed: int = 1


def measure(plan: SimulatorPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Live through it. Seconds are wall time and CPU time of this process; MiB are resident memory by simulated hour.
    """
    each = max(1, plan.gpus // MODELS)  # they always run: the most that can be there is the most to look at
    services = {f"model-{n}": (_service(f"model-{n}", each, each), _asked(plan, n)) for n in range(MODELS)}
    process, rss = psutil.Process(), []

    def hour(now_s: float) -> None:
        if now_s % 3_600 < 60:
            rss.append(round(process.memory_info().rss / 2**20, 1))
            say(f"hour {len(rss)} of {plan.length_s / 3_600:g}: {time.perf_counter() - begun:.0f} s, {rss[-1]:g} MiB")

    say("compiling")
    simulate({"warm": (_service("warm", 1, 1), _asked(SimulatorPlan(600, 1, length_s=60.0), 0))})
    begun, cpu = time.perf_counter(), time.process_time()
    outcomes = simulate(services, loading=LoadingPolicy() if plan.books else None, say=hour)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    total = sum(o.measures.total.requests for o in outcomes.values())
    good = sum(o.measures.total.good for o in outcomes.values())
    settled = rss[len(rss) // 4:]
    return {
        "machine": machine(), "requests": total, "gpus": each * MODELS, "models": MODELS, "length_s": plan.length_s,
        "books": plan.books, "seed": plan.seed, "wall_s": wall_s, "cpu_s": cpu_s, "requests_per_cpu_s": total / cpu_s,
        "goal_s": GOAL_S, "within_goal": cpu_s <= GOAL_S, "rss_mib": rss,
        "rss_mib_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rss_growth": settled[-1] / settled[0] - 1 if settled else None,
        "unanswered": sum(o.unanswered for o in outcomes.values()), "attainment": good / total if total else None,
        "gpu_hours": sum(o.spent.gpu_s for o in outcomes.values()) / 3_600,
        "residual_nanousd": sum(o.money.residual for o in outcomes.values()) if plan.books else None}


def _service(name: str, least: int, most: int) -> Service:
    variant = Variant("gpu", ENGINE.steps, ENGINE.kv_tokens, ENGINE.max_num_seqs, ENGINE.max_batched_tokens, 3 * 10**9,
                      least, most, ENGINE.start_s)
    policy = Policy(SloRule(), (variant,), Slo(ttft_ms=2_000, tpot_ms=50))
    return Service(name, policy, (ENGINE,), (160,), (1,), (False,), by_conversation=False)


def _asked(plan: SimulatorPlan, number: int) -> Traffic:
    return Traffic(_chunks(plan, number), plan.length_s, np.zeros(0, np.int64))


def _chunks(plan: SimulatorPlan, number: int) -> Iterator[Chunk]:
    """A model's requests, an hour at a time."""
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, number]))
    hours = max(1, round(plan.length_s / 3_600))
    wave = 1 + 0.6 * np.sin(2 * np.pi * (np.arange(hours) / hours + number / 40))
    counts = np.diff(np.round(np.concatenate([[0], np.cumsum(wave)]) / wave.sum() * (plan.requests // MODELS)))
    for hour, count in enumerate(counts.astype(int)):
        span = plan.length_s / hours
        at = np.sort(rng.uniform(hour * span, (hour + 1) * span, count))
        prompt = np.clip(rng.lognormal(5.8, 0.9, count), 1, 8_000).astype(np.int64)
        output = np.clip(rng.lognormal(4.6, 0.8, count), 1, 1_500).astype(np.int64)
        none = np.zeros(count, np.int64)
        yield Chunk(at, prompt, output, none, none, none)
