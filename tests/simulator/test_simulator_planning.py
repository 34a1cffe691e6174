"""A plan is the least that keeps the promises, and a profile fitted to a run tells that run again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.bench.simulator import SimulatorPlan, measure
from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.slos import Slo
from serving.simulator.fitting import Seen, calibrated, seen, simulated, validated
from serving.simulator.planning import Fixed, live, plan, sensitivity
from serving.simulator.profile import EngineProfile
from serving.simulator.traffic import traffic
from serving.simulator.world import Service

ENGINE = EngineProfile(fixed_s=0.015, token_s=1e-4, attention_s=0, cache_s=0, kv_tokens=65_536, max_num_seqs=8,
                       max_batched_tokens=512, start_s=20)
VARIANT = Variant("v", ENGINE.steps, ENGINE.kv_tokens, 8, 512, 3 * 10**9, 1, 4, 20)
SERVICE = Service("m", Policy(SloRule(), (VARIANT,), Slo(ttft_ms=800, tpot_ms=60)), (ENGINE,), (10,), (2,), (False,),
                  by_conversation=False)


def asked(count: int = 1_500, length_s: float = 120.0):
    rng = np.random.default_rng(3)
    return traffic(np.sort(rng.uniform(0, length_s, count)), rng.integers(100, 900, count),
                   rng.integers(20, 60, count), length_s)


def test_one_replica_less_would_not_keep_the_promises() -> None:
    found = plan(SERVICE, asked(), SloRule())
    fixed = found.ways["fixed"]
    assert fixed.least == fixed.most > 1 and fixed.attainment >= 0.9
    assert live(SERVICE, asked(), Fixed(), fixed.most - 1, fixed.most - 1).attainment < 0.9
    assert fixed.outcome.spent.gpu_s == pytest.approx(fixed.most * 2 * fixed.outcome.length_s)
    assert found.way.attainment >= 0.9
    assert found.way.usd == min(w.usd for w in found.ways.values() if w.attainment >= 0.9)


def test_the_same_plan_keeps_less_under_more_load() -> None:
    rows = sensitivity(plan(SERVICE, asked(600), SloRule()), SloRule())
    kept = [way.attainment for _, way in rows]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1]


def test_what_no_number_of_replicas_can_keep_is_no_plan() -> None:
    hopeless = replace(SERVICE, policy=replace(SERVICE.policy, slo=Slo(ttft_ms=20, tpot_ms=60)))
    found = plan(hopeless, asked(200, 60.0), SloRule())
    assert found.chosen is None and found.way.attainment < 0.9


def live_run(request_s: float, token_s: float, count: int = 160) -> Seen:
    """Lonely requests, as a server with that much around its engine would answer them."""
    rng = np.random.default_rng(4)
    prompt, output = rng.integers(50, 400, count).astype(float), rng.integers(10, 60, count).astype(float)
    ttft = ENGINE.fixed_s + ENGINE.token_s * prompt + request_s
    return Seen(np.arange(count) * 5.0, prompt, output, ttft, np.full(count, ENGINE.fixed_s + ENGINE.token_s + token_s))


def test_what_steps_do_not_explain_is_found_and_the_other_half_is_told() -> None:
    first, second = live_run(0.030, 0.004).halves()
    found = calibrated(ENGINE, first, 1)
    assert found.request_s == pytest.approx(0.030, abs=1e-3) and found.token_wait_s == pytest.approx(0.004, abs=3e-4)
    assert all(c.within and abs(c.error) < 0.03 for c in validated(found, second, 1).values())
    slower = second.part(np.arange(len(second.sent)))
    slower.ttft[:] *= 1.5
    assert not validated(found, slower, 1)["ttft_ms"].within


def test_steps_that_would_take_longer_than_tokens_came_are_shortened() -> None:
    first, _ = live_run(0.0, -0.005).halves()
    found = calibrated(ENGINE, first, 1)
    assert found.fixed_s < ENGINE.fixed_s and found.token_wait_s == pytest.approx(0, abs=2e-4)
    assert simulated(found, first, 1)["tpot_ms"] == pytest.approx(first.medians["tpot_ms"], rel=0.03)


def test_records_that_are_no_answers_are_left_out() -> None:
    good = {"error": None, "warmup": False, "api": "chat", "completion_tokens": 5, "prompt_tokens": 20,
            "cached_tokens": 16, "sent": 1.0, "first_content": 1.5, "last_content": 1.9, "stream": True}
    found = seen([good, good | {"sent": 0.0, "stream": False}, good | {"error": {"kind": "timeout"}},
                  good | {"warmup": True}, good | {"api": "embeddings"}, good | {"completion_tokens": None}])
    assert found.sent.tolist() == [0.0, 1.0] and found.computed.tolist() == [4, 4]
    assert np.isnan(found.ttft[0]) and found.ttft[1] == 0.5 and found.tpot[1] == pytest.approx(0.1)


def test_the_bench_tells_what_it_lived_through() -> None:
    told = measure(SimulatorPlan(2_000, 20, True, 600.0), lambda text: None)
    assert told["requests"] == 2_000 and told["gpus"] == 20 and told["residual_nanousd"] == 0
    assert told["unanswered"] == 0 and told["cpu_s"] > 0 and told["gpu_hours"] == pytest.approx(20 / 6, rel=0.01)
