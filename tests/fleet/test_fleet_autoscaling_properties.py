"""What holds of decisions whatever is wanted, measured and paid: bounds, spares, hours, caps, who gives way, and that
nothing goes to zero by accident.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.autoscaling import Decision, Load, Policy, Sums, Variant, decide
from serving.fleet.autoscaling.deciding import Claim, within
from serving.fleet.autoscaling.hpa import Hpa
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.signals import REASONS, State
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.autoscaling.spec import Hours
from serving.fleet.slos import Slo
from serving.fleet.stepmodel import StepModel

ONE = Variant("one", StepModel(0.015, 7e-5, 5e-10, 1e-7), 300_000, 64, 2_048, 10, 0, 20, 60.0)
SLO = Slo(ttft_ms=2_000, tpot_ms=40)
RULES = (SloRule(), SloRule(remember_s=300, correct=0.5), RayDefault(8), Queue(), Queue(8, 60, True), Hpa())
DAY = 86_400.0


@dataclass(frozen=True)
class Wants:
    """A rule that wants so many, whatever comes."""

    replicas: tuple[int, ...]
    name: str = "wants"

    def want(self, load: Load, variants: Any, slo: Slo, target: tuple[int, ...], own: Any, now: float) -> Any:
        return self.replicas, "demand", own, None


def busy(at: float, arrived: int = 1) -> Load:
    """Someone is there."""
    return Load(at, arrived, 0, 0, 1, 0, (1,), (0,))


@given(want=st.integers(0, 30), least=st.integers(0, 5), more=st.integers(0, 15), spares=st.integers(0, 4))
def test_spares_come_on_top_of_what_is_needed_within_the_bounds(want: int, least: int, more: int, spares: int) -> None:
    most = max(1, least + more)
    policy = Policy(Wants((want,)), (replace(ONE, least=least, most=most),), SLO, spares=spares)
    decision = decide(busy(5.0), policy, policy.begin(), 5.0)
    needed = want or (least if least else 1)  # someone is there, so one at least
    assert decision.total == min(most, max(least, needed + spares))
    assert decision.reason in REASONS and decision.state.target == decision.replicas


@given(want=st.integers(0, 9), hours=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 23), st.integers(0, 23)),
                                              max_size=3), hour=st.floats(0, 167.9))
def test_the_most_of_the_hours_that_hold_is_kept(want: int, hours: list[tuple[int, int, int]], hour: float) -> None:
    said = tuple(Hours(least=n, start=f"{a:02}:00", end=f"{b:02}:00") for n, a, b in hours)
    policy, now = Policy(Wants((want,)), (replace(ONE, least=1, most=9),), SLO, hours=said), 4 * DAY + hour * 3_600
    decision = decide(busy(now), policy, policy.begin(), now)
    least = max([n for n, a, b in hours if a == b or (a <= hour % 24 < b if a < b else not b <= hour % 24 < a)] + [1])
    assert decision.total == max(want, least)


# (wanted, least) replicas by variant, priority, value, own cap
CLAIM = st.tuples(st.tuples(st.integers(0, 8), st.integers(0, 8)), st.tuples(st.integers(0, 2), st.integers(0, 2)),
                  st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5]), st.one_of(st.none(), st.integers(0, 120)))


def claims_of(drawn: list[Any], prices: tuple[int, int]) -> dict[str, Claim]:
    def claim(want: tuple[int, int], least: tuple[int, int], priority: int, value: float, cap: int | None) -> Claim:
        variants = tuple(replace(ONE, name=str(n), price=p, least=at) for n, (p, at) in
                         enumerate(zip(prices, least, strict=True)))
        wanted = tuple(map(max, want, least))
        return Claim(Decision(wanted, "demand", State(wanted)), variants, cap, priority, value)

    return {chr(97 + n): claim(*one) for n, one in enumerate(drawn)}


def bill(replicas: tuple[int, ...], claim: Claim) -> int:
    return sum(n * v.price for n, v in zip(replicas, claim.variants, strict=True))


@given(drawn=st.lists(CLAIM, min_size=1, max_size=5), prices=st.tuples(st.integers(1, 9), st.integers(1, 30)),
       cap=st.one_of(st.none(), st.integers(0, 300)))
def test_caps_hold_and_take_nothing_that_always_runs(drawn: list[Any], prices: tuple[int, int],
                                                     cap: int | None) -> None:
    claims = claims_of(drawn, prices)
    found = within(claims, cap)
    floor = {name: bill(tuple(v.least for v in c.variants), c) for name, c in claims.items()}
    for name, c in claims.items():
        got = found[name]
        assert all(v.least <= n <= w for v, n, w in zip(c.variants, got.replicas, c.decision.replicas, strict=True))
        assert c.cap is None or bill(got.replicas, c) <= max(c.cap, floor[name])
        assert got.state.target == got.replicas
        assert (got.reason == "cost_cap") == (got.replicas != c.decision.replicas)
    if cap is not None:
        assert sum(bill(found[n].replicas, c) for n, c in claims.items()) <= max(cap, sum(floor.values()))
    if cap is None and all(c.cap is None for c in claims.values()):
        assert all(found[n] == c.decision for n, c in claims.items())


@given(drawn=st.lists(CLAIM, min_size=2, max_size=5), cap=st.integers(0, 300))
def test_whoever_comes_later_gives_way_first(drawn: list[Any], cap: int) -> None:
    claims = {n: replace(c, cap=None) for n, c in claims_of(drawn, (7, 7)).items()}  # all replicas cost the same
    found = within(claims, cap)
    order = sorted(claims, key=lambda n: (-claims[n].priority, -claims[n].value, n))
    for first, later in pairwise(order):
        if found[first].reason == "cost_cap":
            assert found[later].replicas == tuple(v.least for v in claims[later].variants)
    more = within(claims, cap + 7)
    assert sum(d.total for d in more.values()) >= sum(d.total for d in found.values())
    assert more[order[0]].total >= found[order[0]].total


MOMENT = st.tuples(st.floats(1, 200), st.sampled_from(["none", "old", "quiet", "busy", "came"]))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.name}-{RULES.index(r)}")
@given(course=st.lists(MOMENT, min_size=1, max_size=25))
def test_nothing_goes_to_zero_but_after_fresh_news_that_no_one_has_been_there_for_long(
        rule: Any, course: list[tuple[float, str]]) -> None:
    policy = Policy(rule, (ONE,), SLO, zero_after_s=100, stale_s=30)
    state = State((2,))
    now, arrived, used = 1_000.0, 5, 1_000.0  # someone may have been there when we began
    for passed, kind in course:
        now += passed
        arrived += kind == "came"
        at = now - 1_000 if kind == "old" else now
        load = None if kind == "none" else Load(
            at, arrived, 0, 0, int(kind == "busy"), 0, state.target, (0,), Sums(5, 5e3, 5e3, 5e6, 1e3))
        before, first = state.target, state.used_at_s is None
        decision = decide(load, policy, state, now)
        state = decision.state
        if kind in ("none", "old"):
            assert decision.replicas == before and decision.reason == "stale"
            continue
        if first or kind in ("busy", "came"):
            used = now
        if decision.total == 0 and sum(before) > 0:
            assert kind == "quiet" and now - used >= 100 and decision.reason == "to_zero"
        if kind == "busy":
            assert decision.total >= 1
