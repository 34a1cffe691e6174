"""The comparison of policies is fair: halves, tuning, and equal attainment are what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.slos import Slo
from serving.simulator import evaluation
from serving.simulator.evaluation import Case, Judged, Result, Verdict, chosen, halves, judge, summary
from serving.simulator.foresight import Foreseen, always
from serving.simulator.profile import EngineProfile
from serving.simulator.simulate import simulate
from serving.simulator.traffic import repeated, traffic, whole
from serving.simulator.world import Service

ENGINE = EngineProfile(fixed_s=0.015, token_s=7e-5, attention_s=5e-10, cache_s=1e-7, kv_tokens=65_536, max_num_seqs=16,
                       max_batched_tokens=512, start_s=20)
VARIANT = Variant("v", ENGINE.steps, ENGINE.kv_tokens, 16, 512, 10**9, 1, 4, 20)
SERVICE = Service("m", Policy(SloRule(), (VARIANT,), Slo(ttft_ms=1_500, tpot_ms=60)), (ENGINE,), (20,), (1,), (False,))


def case(length_s: float = 1_200.0, count: int = 600) -> Case:
    rng = np.random.default_rng(5)
    asked = traffic(np.sort(rng.uniform(0, length_s - 1, count)), rng.integers(50, 900, count),
                    rng.integers(2, 60, count), length_s)
    return Case("made", SERVICE, asked, 1, "")


def result(target: float, attainment: float, gpu_hours: float) -> Result:
    return Result(Queue(target), attainment, gpu_hours, gpu_hours, 100, 1)


def test_copies_come_within_seconds_and_share_no_prompts() -> None:
    one = traffic([0.0, 5.0, 9.0], [64] * 3, [4] * 3, 10.0, [1, 2, 3], [[7, 8], [7, 9], [4]], 32)
    three = repeated(one, 3, 0)
    (chunk,) = three.chunks
    assert len(chunk.at) == 9 and (np.diff(chunk.at) >= 0).all() and chunk.at.max() <= 9 + 10
    named = [tuple(three.bids[a:a + n].tolist()) for a, n in zip(chunk.blocks_at, chunk.blocks, strict=True)]
    firsts = [names[0] for names in named]
    assert sorted(map(len, named)) == [1] * 3 + [2] * 6 and len(set(firsts)) == 6  # 7 and 4 of each copy
    assert len(set(chunk.key.tolist())) == 9
    many = traffic(np.arange(4_000.0), [64] * 4_000, [4] * 4_000, 4_000.0)
    assert [len(whole(repeated(many, times, 0)).at) / 4_000 for times in (0.5, 1, 1.25)] == pytest.approx(
        [0.5, 1, 1.25], abs=0.03)


def test_the_second_half_leads_in_with_the_first_ones_end_and_counts_none_of_it() -> None:
    made = case()
    first, second = halves(made)
    (early,), (late,) = first.chunks, second.chunks
    (whole,) = made.traffic.chunks
    middle, lead = 600.0, 150.0
    assert len(early.at) == (whole.at < middle).sum() and len(late.at) == (whole.at >= middle - lead).sum()
    told = evaluation.lived(made, second, RayDefault(8), 0)
    assert told.requests == (whole.at >= middle).sum()
    assert 0 < told.gpu_hours <= 4 * middle / 3_600 + 1e-9


def test_what_comes_before_is_neither_measured_nor_paid() -> None:
    asked = case().traffic
    whole, part = (simulate({"m": (SERVICE, asked)}, counted_from_s=from_s)["m"] for from_s in (0.0, 600.0))
    assert part.measures.total.requests < whole.measures.total.requests == 600
    assert part.spent.gpu_s <= whole.spent.gpu_s - 600 + 1e-6


def test_the_cheapest_that_keeps_the_objective_is_chosen_else_the_nearest() -> None:
    tried = [result(1, 0.99, 5), result(2, 0.91, 3), result(3, 0.85, 1)]
    assert chosen(tried, 0.9) is tried[1] and chosen(tried[2:], 0.9) is tried[2]
    assert chosen([result(4, 0.5, 1), result(5, 0.7, 9)], 0.9).attainment == 0.7


def test_ours_takes_dearer_settings_until_it_keeps_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    made, tuned, told = case(), {}, {}
    # (kept, GPU-hours) in the first half and in the second
    lives = {SloRule(fill=1.2): ((0.91, 2.0), (0.88, 2.0)), SloRule(fill=1.0): ((0.95, 3.0), (0.93, 3.5)),
             SloRule(fill=0.8): ((0.99, 4.0), (0.99, 4.5)), Queue(1): ((0.92, 6.0), (0.94, 6.0)),
             Queue(9): ((0.85, 1.0), (0.95, 1.0)), RayDefault(4): ((0.93, 8.0), (0.97, 9.0))}
    for rule, (one, two) in lives.items():
        tuned[rule], told[rule] = Result(rule, *one, 1, 10, 1), Result(rule, *two, 1, 10, 1)
    first, _ = halves(made)
    monkeypatch.setattr(evaluation, "lived", lambda of, asked, rule, seed: (
        tuned if asked.length_s == first.length_s else told)[rule])
    plans = [Foreseen(how, ()) for how in "abc"]
    told |= {plan: Result(plan, *two, 1, 10, 1) for plan, two in zip(plans, ((0.99, 5.0), (0.94, 3.0), (0.9, 2.0)),
                                                                     strict=True)}
    told |= {always(n): Result(always(n), 0.9 + n / 50, 1.5 * n, 1, 10, 1) for n in range(1, 5)}
    monkeypatch.setattr(evaluation.foresight, "plans", lambda asked, variant, slo: plans)
    rules = [r for r in lives if isinstance(r, SloRule)]
    found = judge(made, {"ours": rules, "queue": (Queue(1), Queue(9)), "ray-default": (RayDefault(4),)}, 0.9, 0)
    assert found.best == "queue" and found.judged["queue"].told.rule == Queue(1)  # 9 missed it in the first half
    assert found.judged["ours"].told.attainment == 0.88  # what tuning gave
    assert found.matched is not None and found.matched.gpu_hours == 4.5  # 0.93 is less than 0.94
    assert found.saved == pytest.approx(1 - 4.5 / 6)
    assert found.foreseen is not None and found.foreseen.gpu_hours == 3.0  # two always keep 0.94, too
    assert found.saved_at_most == pytest.approx(0.5)
    assert found.against["ray-default"] is not None and found.against["ray-default"].gpu_hours == 4.5
    high = judge(made, {"ours": rules, "queue": (Queue(9),)}, 0.99, 0)  # queue comes to 0.85, and ours need not beat it
    assert high.judged["ours"].tuned.rule == SloRule(fill=1.2)
    reached = judge(made, {"ours": rules, "queue": (Queue(1),), "ray-default": (RayDefault(4),)}, 0.93, 0)
    assert reached.judged["ours"].tuned.rule == SloRule(fill=1.0)  # ray-default did


def test_the_summary_adds_traces_up_and_says_where_nothing_keeps_as_much() -> None:
    ours, other = result(1, 0.9, 3), result(2, 0.9, 4)
    judged = {"ours": Judged("ours", ours, ours, ()), "queue": Judged("queue", other, other, ())}
    good = Verdict(judged, "queue", {"queue": ours})
    said = summary({"a": good, "b": replace(good, against={"queue": None})})
    assert said["gpu_hours_saved"] == pytest.approx(1 - 6 / 8) and not said["at_equal_or_better_attainment"]
    assert said["against"]["queue"]["gpu_hours_saved"] == pytest.approx(1 - 6 / 8)
    assert not said["against"]["queue"]["at_equal_or_better_attainment"]
    assert said["gpu_hours_saved_by_trace"] == {"a": pytest.approx(0.25), "b": None} and not said["reached"]
    known = summary({"a": replace(good, foreseen=result(3, 0.9, 1)), "b": good})["foreseen"]
    assert known["by_trace"] == {"a": pytest.approx(0.75), "b": None} and known["gpu_hours_saved"] == 0.75


def test_a_real_comparison_of_small_ones_tells_all_policies() -> None:
    found = judge(case(600, 240), {"ours": (SloRule(), SloRule(remember_s=300, correct=0.3)),
                                   "ray-default": (RayDefault(2), RayDefault(16))}, 0.9, 0)
    assert {n: len(j.tried) for n, j in found.judged.items()} == {"ours": 2, "ray-default": 2}
    assert all(0 < j.told.gpu_hours < 1 for j in found.judged.values())


def test_every_policy_has_settings_and_quick_ones_are_among_no_more() -> None:
    whole, quick = evaluation.rules(64), evaluation.rules(64, True)
    assert set(whole) == set(quick) == {"ours", "ray-default", "queue", "hpa"}
    assert all(len(set(whole[n])) == len(whole[n]) > len(quick[n]) > 1 for n in whole)
    for settings in (whole, quick):
        assert len(settings["ours"]) <= sum(len(tries) for name, tries in settings.items() if name != "ours")
