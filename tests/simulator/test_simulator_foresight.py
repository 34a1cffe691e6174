"""Who knows all beforehand starts in time, keeps what would soon be started again, and spends what may be late."""

from __future__ import annotations

import numpy as np
import pytest

from serving.fleet.autoscaling import Load, Policy, Variant, decide
from serving.fleet.autoscaling.capacity import Mix, capacity
from serving.fleet.slos import Slo
from serving.fleet.stepmodel import StepModel
from serving.simulator import foresight
from serving.simulator.foresight import Foreseen, planned, plans, work
from serving.simulator.traffic import traffic

VARIANT = Variant("v", StepModel(0.02, 1e-4, 0.0, 0.0), 100_000, 32, 2_048, 10**9, 1, 8, 60.0)
SLO = Slo(ttft_ms=2_000, tpot_ms=60)


def bins(*parts: tuple[float, int]) -> np.ndarray:
    """(worth, how many bins of ten seconds) after each other."""
    return np.concatenate([np.full(count, worth) for worth, count in parts])


def test_work_is_what_the_capacity_model_says_of_what_comes() -> None:
    one = capacity(VARIANT, Mix(500, 500, 250_000, 50), SLO).per_s
    at = np.arange(0, 300, 0.05)
    worth, count = work(traffic(at, [500] * len(at), [50] * len(at), 400.0), VARIANT, SLO)
    assert worth[5:25] == pytest.approx(np.full(20, 20 / one), rel=0.05) and (worth[32:] == 0).all()
    assert count.sum() == len(at)


def test_replicas_are_started_a_start_ahead_and_go_when_nobody_needs_them() -> None:
    worth = bins((1, 30), (3, 30), (1, 30))
    found = planned(worth, worth * 10, VARIANT, 1.0, 1.0)
    assert found == (1,) * 24 + (3,) * 36 + (1,) * 30  # six bins ahead


def test_a_gap_shorter_than_a_start_and_an_idle_node_is_kept_and_a_longer_one_not() -> None:
    for gap, least in ((11, 4), (40, 1)):
        worth = bins((4, 20), (1, gap), (4, 20))
        assert min(planned(worth, worth, VARIANT, 1.0, 1.0)) == least


def test_what_may_be_late_is_spent_where_most_are_needed() -> None:
    worth, count = bins((2, 95), (7, 5)), np.full(100, 10.0)
    assert max(planned(worth, count, VARIANT, 1.0, 1.0)) == 7 and max(planned(worth, count, VARIANT, 1.0, 0.95)) == 2
    assert max(planned(worth, count, VARIANT, 0.5, 1.0)) == 8  # the most there may be


def test_a_plan_is_a_rule() -> None:
    policy = Policy(Foreseen("made", (2, 5)), (VARIANT,), SLO)
    state, wanted = policy.begin(), []
    for at in (0.0, 5.0, 10.0, 900.0):
        decision = decide(Load(at, 0, 0, 0, 0, 0, (1,), (0,)), policy, state, at)
        state = decision.state
        wanted.append(decision.total)
    assert wanted == [2, 2, 5, 5]


def test_there_are_leaner_plans_and_richer_ones() -> None:
    at = np.arange(0, 600, 0.1)
    found = plans(traffic(at, [900] * len(at), [80] * len(at), 600.0), VARIANT, SLO)
    assert len(found) == len(foresight.FILLS) * len(foresight.SHARES)
    most = [max(p.plan) for p in found if p.how.endswith("100% of the requests")]
    assert most == sorted(most, reverse=True) and most[0] > most[-1]
    assert set(foresight.always(3).plan) == {3}
