"""A simulated fleet: money and requests are conserved, a seed gives one run, policies are the live ones."""

from __future__ import annotations

import numpy as np
import pytest

from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.loading import LoadingPolicy
from serving.fleet.slos import Slo
from serving.simulator.profile import EngineProfile
from serving.simulator.simulate import CALM, Outcome, simulate
from serving.simulator.traffic import Traffic, traffic
from serving.simulator.world import Chances, Service

ENGINE = EngineProfile(fixed_s=0.015, token_s=7e-5, attention_s=5e-10, cache_s=1e-7, kv_tokens=65_536, max_num_seqs=32,
                       max_batched_tokens=512, start_s=30)
BURSTS = [(0, 60, 1.0), (60, 120, 12.0), (120, 420, 0.2), (1_200, 1_260, 3.0)]


def asked(bursts: list[tuple[int, int, float]], seed: int = 1) -> Traffic:
    rng = np.random.default_rng(seed)
    at = np.concatenate([np.sort(rng.uniform(a, b, int((b - a) * rate))) for a, b, rate in bursts])
    return traffic(at, rng.integers(50, 1_500, len(at)), rng.integers(2, 120, len(at)), bursts[-1][1] + 60.0)


def run(rule, least: int = 0, chances: Chances = CALM, most: int = 5, start_s: float = 30) -> Outcome:
    engine = ENGINE.model_copy(update={"start_s": start_s})
    variant = Variant("v", engine.steps, engine.kv_tokens, engine.max_num_seqs, engine.max_batched_tokens, 10**9, least,
                      most, start_s, 20)
    policy = Policy(rule, (variant,), Slo(ttft_ms=1_500, tpot_ms=60))
    service = Service("m", policy, (engine,), (40,), (1,), (True,), max_wait_s=1e9)
    return simulate({"m": (service, asked(BURSTS))}, chances, loading=LoadingPolicy(), keep_steps=True)["m"]


@pytest.mark.parametrize("rule", [SloRule(), RayDefault(8), Queue(4)], ids=lambda r: r.name)
@pytest.mark.parametrize("chances", [Chances(), Chances(3, mtbf_h=0.05), Chances(4, reclaim_h=0.05, notice_s=10)])
def test_every_request_and_every_nano_dollar_is_accounted_for(rule, chances: Chances) -> None:
    found = run(rule, chances=chances)
    count = sum(int((b - a) * rate) for a, b, rate in BURSTS)
    assert found.measures.total.requests == count and not found.unanswered and not found.too_long
    assert found.money.residual == 0 and found.money.direct > 0 and found.money.total > 0
    assert sum(h.requests for h in found.measures.hours.values()) == count
    assert sum(found.spent.hours_gpu_s.values()) == pytest.approx(found.spent.gpu_s)
    if chances == Chances():
        assert found.measures.total.failed == 0
    else:
        assert found.spent.failures + found.spent.reclaims > 0


def test_a_seed_gives_one_run() -> None:
    one, two = (run(SloRule(), chances=Chances(7, mtbf_h=0.1)) for _ in range(2))
    assert one.steps == two.steps and one.money == two.money and one.measures.total == two.measures.total


def test_a_model_at_zero_wakes_answers_and_sleeps_again() -> None:
    found = run(SloRule())
    wanted = [s.wanted for s in found.steps]
    assert wanted[0] >= 1 and max(wanted) > 1 and 0 in wanted[1:] and found.spent.reasons["wake"] >= 2
    assert found.spent.reasons["to_zero"] >= 1 and found.measures.total.failed == 0
    assert found.money.cold_start > 0


def test_what_always_runs_is_there_from_the_beginning() -> None:
    there, woken = run(SloRule(), least=1, most=1, start_s=300), run(SloRule(), least=0, most=1, start_s=300)
    assert there.measures.ttft.quantile(0.01) < 1 < woken.measures.ttft.quantile(0.01)
    assert there.money.cold_start == 0 and there.spent.starts == 0 and there.money.residual == 0
    assert there.spent.gpu_s == pytest.approx(there.length_s)


def test_a_longer_start_makes_more_late() -> None:
    assert run(SloRule(), start_s=120).measures.total.good < run(SloRule(), start_s=5).measures.total.good


def test_more_replicas_than_needed_cost_more_and_answer_sooner() -> None:
    lean, rich = run(SloRule(), least=1), run(SloRule(), least=5)
    assert rich.spent.gpu_s > lean.spent.gpu_s and rich.measures.total.good > lean.measures.total.good
    assert rich.measures.ttft.quantile(0.95) < lean.measures.ttft.quantile(0.95)
