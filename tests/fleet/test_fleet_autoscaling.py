"""Autoscaling decisions: what must never happen, what each rule wants, who gives way when money is short."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.autoscaling import Load, Policy, Sums, Variant, decide
from serving.fleet.autoscaling.capacity import Mix, capacity
from serving.fleet.autoscaling.cheapest import cheapest
from serving.fleet.autoscaling.deciding import Claim, within
from serving.fleet.autoscaling.hpa import Hpa
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.signals import REASONS, State
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.autoscaling.spec import Hours
from serving.fleet.slos import Slo
from serving.fleet.stepmodel import StepModel

H100 = Variant("h100", StepModel(0.015, 7e-5, 5e-10, 1e-7), 300_000, 64, 2_048, 3_000_000_000, 0, 20, 60.0, 30.0)
SLO = Slo(ttft_ms=2_000, tpot_ms=40)
RULES = (SloRule(), RayDefault(8), Queue(), Hpa())


def policy(rule=RULES[0], **changes) -> Policy:
    return Policy(rule, (replace(H100, **changes),), SLO)


def load(at: float, rate: float, ready: int = 1, **changes) -> Load:
    """Steady arrivals since second 0, answered at once."""
    n = int(at * rate)
    told = Load(at, n, 0, 0, int(rate * 4), 0, (ready,), (0,), Sums(n, n * 1_000.0, n * 1_000.0, n * 1.5e6, n * 200.0))
    return replace(told, **changes)


def settled(policy: Policy, rate: float, until: float = 600, begin: float = 5, state=None):
    decision, at = None, begin
    state = state or policy.begin()
    while at <= until:
        decision = decide(load(at, rate, max(1, sum(state.target))), policy, state, at)
        state, at = decision.state, at + 5
    return decision


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
@given(st.floats(0, 30), st.integers(0, 3), st.integers(3, 9))
def test_bounds_hold_and_reasons_are_known(rule, rate: float, least: int, most: int) -> None:
    decision = settled(policy(rule, least=least, most=most), rate, 120)
    assert least <= decision.total <= most and decision.reason in REASONS


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_a_missing_or_old_measurement_changes_nothing(rule) -> None:
    of = policy(rule)
    state = replace(of.begin(), target=(7,))
    for told in (None, load(100.0, 0.0)):
        decision = decide(told, of, state, 10_000.0)
        assert decision.replicas == (7,) and decision.reason == "stale" and decision.state == state


def test_to_zero_only_after_a_while_and_back_as_soon_as_someone_waits() -> None:
    of = policy()
    state = replace(of.begin(), target=(1,), used_at_s=0.0, arrived=10)
    quiet = Load(100.0, 10, 0, 0, 0, 0, (1,), (0,))
    assert decide(quiet, of, state, 100.0).replicas == (1,)
    gone = decide(replace(quiet, at_s=301.0), of, state, 301.0)
    assert (gone.replicas, gone.reason) == ((0,), "to_zero")
    woken = decide(replace(quiet, at_s=306.0, arrived=11, queued=1, ready=(0,)), of, gone.state, 306.0)
    assert (woken.replicas, woken.reason) == ((1,), "wake")


def test_more_for_more_and_for_longer_prompts_and_a_tighter_promise() -> None:
    few, many = settled(policy(), 5.0), settled(policy(), 20.0)
    assert 1 <= few.total < many.total and many.needed is not None
    mix, longer = Mix(1_000, 1_000, 1.5e6, 200), Mix(4_000, 4_000, 20e6, 200)
    assert capacity(H100, longer, SLO).per_s < capacity(H100, mix, SLO).per_s
    assert capacity(H100, mix, Slo(ttft_ms=2_000, tpot_ms=20)).per_s < capacity(H100, mix, SLO).per_s
    assert capacity(replace(H100, kv_tokens=10_000), mix, SLO).limit == "kv"
    assert capacity(replace(H100, seats=2), mix, SLO).limit == "seats"
    cached = Mix(4_000, 400, 3e5, 200)
    assert capacity(H100, cached, SLO).per_s > capacity(H100, longer, SLO).per_s


def test_prompts_that_wait_count_by_their_length() -> None:
    def wanted(tokens: int) -> int:
        """With sixty that wait, of so many tokens together."""
        state = settled(policy(), 10.0).state
        return decide(load(605, 10.0, sum(state.target), waiting=60, queued_tokens=tokens), policy(), state, 605).total

    assert wanted(0) == wanted(60 * 1_000) < wanted(60 * 16_000)


def test_fewer_only_after_as_long_as_a_start_takes() -> None:
    of = policy()
    high = settled(of, 20.0)
    at, state, arrived = 605.0, high.state, 12_000
    first = None
    while first is None and at < 1_000:
        told = load(at, 0, high.total, arrived=arrived, running=0,
                    sums=Sums(12_000, 12e6, 12e6, 18e9, 2.4e6))
        decision = decide(told, of, state, at)
        state, at = decision.state, at + 5
        first = at if decision.total < high.total else None
    assert first is not None and 600 + 60 < first < 600 + 240


@pytest.mark.parametrize("rule", [SloRule(), Queue(5.0, 90.0), Hpa(0.7, "busy", 90.0)], ids=lambda r: r.name)
def test_who_has_just_begun_to_look_ends_nothing_yet(rule) -> None:
    of, totals = policy(rule, least=1), []
    state = State((9,))  # as a controller finds them that was started anew
    for at in range(1_000, 1_200, 5):
        decision = decide(Load(at, 50, 0, 0, 1, 0, (sum(state.target),), (0,), busy=0.01), of, state, at)
        state = decision.state
        totals.append(decision.total)
    assert totals[:18] == [9] * 18 and totals[-1] == 1


def test_bursts_are_remembered_but_for_the_share_that_may_be_late() -> None:
    def wanted(rule: SloRule, share: float) -> int:
        """After a burst of a minute, six minutes ago, in which so large a share of all requests came."""
        quiet, state, decision, arrived = 2.0, policy(rule, most=40).begin(), None, 0.0
        for at in range(5, 905, 5):
            arrived += 5 * (quiet * 840 / 60 * share / (1 - share) if 480 <= at < 540 else quiet)
            told = replace(load(at, 1.0), arrived=int(arrived))
            decision = decide(told, policy(rule, most=40), state, at)
            state = decision.state
        return decision.total

    forgets, remembers = SloRule(growth=0, hold=0), SloRule(growth=0, hold=0, remember_s=900)
    assert wanted(remembers, 0.4) > wanted(forgets, 0.4) == wanted(forgets, 0.05)
    assert wanted(remembers, 0.05) == wanted(forgets, 0.05)  # within the tenth that may be late


def test_many_late_ones_are_answered_by_more_and_none_by_fewer() -> None:
    def after(rule: SloRule, late: float) -> int:
        state, decision = policy(rule, most=40).begin(), None
        for at in range(5, 905, 5):
            decision = decide(load(at, 20.0, late=late), policy(rule, most=40), state, at)
            state = decision.state
        return decision.total

    corrects, same = SloRule(correct=0.3), SloRule()
    assert after(corrects, 0.0) < after(corrects, 0.1) == after(same, 0.0) == after(same, 0.5) < after(corrects, 0.3)


def test_a_crowd_is_demand_before_anything_of_it_has_been_answered() -> None:
    def wanted(crowd: float, running: int) -> int:
        of = policy(SloRule(crowd=crowd), most=40)
        state = settled(of, 10.0).state
        return decide(load(605, 10.0, sum(state.target), running=running), of, state, 605).total

    assert wanted(0.0, 40) == wanted(0.0, 600) == wanted(1.0, 40) < wanted(0.5, 600) < wanted(1.0, 600)


def test_ray_waits_for_its_delays() -> None:
    of = policy(RayDefault(8, upscale_delay_s=30, downscale_delay_s=600), least=1)
    state, ups = of.begin(), []
    for tick in range(1, 20):
        decision = decide(load(tick * 5.0, 0, sum(state.target), running=80), of, state, tick * 5.0)
        state = decision.state
        ups.append(decision.total)
    assert ups[5] == 1 and ups[6] == 10  # wanted at 5 s for the first time, done at 35 s


def test_the_cheapest_set() -> None:
    # 10/s by the dear one at 3.0, 4/s by the cheap one at 1.0: cheap ones first, a dear one where they do not reach
    assert cheapest(8, [10, 4], [30, 10], [0, 0], [5, 5]) == (0, 2)
    assert cheapest(30, [10, 4], [30, 10], [0, 0], [5, 3]) == (3, 0)
    assert cheapest(9, [10, 4], [25, 10], [0, 0], [5, 5]) == (1, 0)
    assert cheapest(0, [10, 4], [30, 10], [1, 0], [5, 3]) == (1, 0)
    assert cheapest(1_000, [10, 4], [30, 10], [0, 0], [2, 3]) == (2, 3)


@settings(max_examples=300)
@given(st.floats(0, 60), st.tuples(st.floats(1, 10), st.floats(1, 10)), st.tuples(*[st.integers(1, 50)] * 2),
       st.tuples(*[st.integers(0, 6)] * 2))
def test_no_cheaper_set_of_two_would_do(demand: float, worth, prices, most) -> None:
    found = cheapest(demand, worth, prices, (0, 0), most)
    able = [(a * prices[0] + b * prices[1], a, b) for a in range(most[0] + 1) for b in range(most[1] + 1)
            if a * worth[0] + b * worth[1] >= demand - 1e-9]
    if able:
        assert sum(n * p for n, p in zip(found, prices, strict=True)) == min(able)[0]
    else:
        assert found == most


def test_least_numbers_are_kept_and_money_goes_to_priority_then_value() -> None:
    def claim(want: int, least: int, priority: int, value: float, cap: int | None = None) -> Claim:
        variant = replace(H100, price=10, least=least)
        return Claim(replace(settled(policy(), 5.0), replicas=(want,)), (variant,), cap, priority, value)

    claims = {"a": claim(4, 1, 0, 1.0), "b": claim(4, 0, 5, 0.0), "c": claim(4, 0, 0, 9.0), "d": claim(4, 0, 9, 0, 20)}
    found = within(claims, 100)
    assert {n: d.total for n, d in found.items()} == {"a": 1, "b": 4, "c": 3, "d": 2}
    assert found["a"].reason == found["d"].reason == "cost_cap" and found["b"].reason != "cost_cap"
    assert within(claims, None)["a"].total == 4


def test_hours_of_the_week() -> None:
    monday = 4 * 86_400.0  # 5 January 1970
    night = Hours(least=2, start="22:00", end="06:00", days=["mon"])
    assert [night.holds(monday + h * 3_600) for h in (21, 23, 29, 31)] == [False, True, True, False]
    of = replace(policy(), hours=(Hours(least=3, start="08:00", end="20:00"),))
    assert decide(load(monday + 9 * 3_600, 0), of, of.begin(), monday + 9 * 3_600).reason == "schedule"
