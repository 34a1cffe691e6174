"""Budgets and decisions about replicas, as scrapes tell them."""

from __future__ import annotations

import pytest

from serving.console.watching import Budget, Decision, Decisions, Scaling, budgets
from serving.fleet.autoscaling.signals import REASONS
from serving.telemetry.view import Scrape

BUDGETS = """
flotilla_budget_usd{model="",tenant="shop",period="month",mark="soft"} 8
flotilla_budget_usd{model="",tenant="shop",period="month",mark="hard"} 10
flotilla_budget_spent_usd{model="",tenant="shop",period="month"} 5
flotilla_budget_end_timestamp_seconds{model="",tenant="shop",period="month"} 2000000000
flotilla_budget_usd{model="qwen",tenant="",period="day",mark="hard"} 1
flotilla_budget_spent_usd{model="qwen",tenant="",period="day"} 0.9
"""


def test_budgets_come_with_their_marks_the_fullest_first() -> None:
    assert budgets(Scrape.parse(0.0, BUDGETS)) == (
        Budget("", "qwen", "day", 0.9, None, 1.0, None), Budget("shop", "", "month", 5.0, 8.0, 10.0, 2e9))
    assert budgets(Scrape.parse(0.0, "")) == ()


def decided(target: int, actual: int, **reasons: int) -> Scrape:
    lines = [f'flotilla_autoscale_target_replicas{{model="qwen"}} {target}',
             f'flotilla_replicas{{model="qwen"}} {actual}']
    lines += [f'flotilla_autoscale_decisions_total{{model="qwen",reason="{name}"}} {n}' for name, n in reasons.items()]
    return Scrape.parse(0.0, "\n".join(lines) + "\n")


def test_a_change_is_told_once_with_its_reason() -> None:
    seen, steady, demand = Decisions(), REASONS["steady"], REASONS["demand"]
    assert seen.look(1.0, decided(1, 1, steady=40)) == ((Scaling("qwen", 1, 1, ()),), ())
    assert seen.look(2.0, decided(1, 1, steady=41)) == ((Scaling("qwen", 1, 1, (steady,)),), ())
    change = Decision(3.0, "qwen", 1, 2, (demand,))
    assert seen.look(3.0, decided(2, 1, steady=42, demand=1)) == ((Scaling("qwen", 2, 1, (demand, steady)),), (change,))
    now, then = seen.look(4.0, decided(2, 2, steady=43, demand=1, new=1))
    assert now == (Scaling("qwen", 2, 2, ("new", steady)),) and then == (change,), "a word that is not known stays"


@pytest.mark.parametrize("text", ["", 'flotilla_replicas{model="qwen"} 1\n'])
def test_a_fleet_that_does_not_scale_has_none(text: str) -> None:
    assert Decisions().look(1.0, Scrape.parse(0.0, text)) == ((), ())
