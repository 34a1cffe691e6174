"""The search for the highest rate that meets the objectives, on a simulated fleet whose knee is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtests.statistics import Count, Found, Search, Trial, next_rate
from loadtests.statistics.search import judge

KNEE = 20.0
SEARCH = Search(goal=0.9, low=4, high=400)


def good_share(rate: float, knee: float = KNEE) -> float:
    """Share of good requests of a fleet that turns bad around its knee; 0.9 exactly there."""
    return 1 / (1 + math.exp((rate / knee - 1) * 12) / 9)


def tried(rate: float, rng: np.random.Generator, seconds: float = 60, models: int = 1) -> Trial:
    total = max(1, int(rate * seconds))
    return Trial(rate, {f"m{n}": Count(int(rng.binomial(total, good_share(rate))), total) for n in range(models)})


def search_for(rng: np.random.Generator, search: Search, models: int = 1) -> tuple[Found, list[Trial]]:
    history: list[Trial] = []
    while True:
        step = next_rate(history, search)
        if isinstance(step, Found):
            return step, history
        assert 0 < step <= search.high
        history.append(tried(step, rng, models=models))
        assert len(history) <= search.max_trials


def test_what_it_finds_meets_the_goal_as_often_as_it_promises():
    rng = np.random.default_rng(21)
    wrong, found_rates = 0, []
    for _ in range(100):
        found, _ = search_for(rng, SEARCH)
        assert found.highest is not None
        found_rates.append(found.highest)
        wrong += good_share(found.highest) < SEARCH.goal
    assert wrong <= 10, wrong  # 5% of 100, and what chance allows
    # and it is no timid answer
    assert 0.88 * KNEE < np.median(found_rates) <= KNEE
    assert min(found_rates) > 0.7 * KNEE


def test_the_bracket_is_as_narrow_as_asked_for():
    found, history = search_for(np.random.default_rng(22), SEARCH)
    assert found.missed is not None and found.highest < found.missed <= found.highest * 1.06
    assert len(history) == found.trials <= SEARCH.max_trials


def test_every_model_has_to_meet_the_goal():
    bad = Trial(4, {"a": Count(240, 240), "b": Count(100, 240)})
    assert judge([bad], SEARCH) == "missed"
    found, _ = search_for(np.random.default_rng(23), SEARCH, models=3)
    assert found.highest is not None and good_share(found.highest) >= 0.9


def test_few_requests_are_not_enough_to_be_sure():
    few = Trial(4, {"a": Count(10, 10)})
    assert judge([few], SEARCH) == "undecided"
    assert next_rate([few], SEARCH) == 4  # again
    assert next_rate([few, few], SEARCH) == 4
    assert judge([few] * 20, SEARCH) == "met"
    assert next_rate([few] * 3, SEARCH) == 2  # not sure after all repeats: looks below
    assert judge([], SEARCH) == "undecided"


def test_requests_that_depend_on_each_other_count_less():
    count = {"met": 235, "total": 240}
    assert judge([Trial(4, {"a": Count(**count)})], SEARCH) == "met"
    assert judge([Trial(4, {"a": Count(**count, worth=20)})], SEARCH) == "undecided"


def test_a_fleet_that_is_never_full():
    found, history = search_for_constant(1.0)
    assert found.highest == SEARCH.high and found.missed is None and "highest rate allowed" in found.reason
    assert [trial.rate_per_s for trial in history] == [4, 8, 16, 32, 64, 128, 256, 400]


def test_a_fleet_that_never_meets_the_goal():
    found, _ = search_for_constant(0.2)
    assert found.highest is None and found.missed is not None and "no rate" in found.reason


def test_the_search_ends_when_its_trials_are_used_up():
    search = Search(goal=0.9, low=4, high=400, max_trials=3)
    found, history = search_for(np.random.default_rng(24), search)
    assert len(history) == 3 and "3 trials" in found.reason


def search_for_constant(share: float) -> tuple[Found, list[Trial]]:
    history: list[Trial] = []
    while not isinstance(step := next_rate(history, SEARCH), Found):
        history.append(Trial(step, {"a": Count(int(share * 1000), 1000)}))
    return step, history


@pytest.mark.parametrize(
    "changes",
    [{"goal": 0}, {"goal": 1.5}, {"low": 0}, {"low": 500}, {"growth": 1}, {"tolerance": 0}, {"max_trials": 0}],
)
def test_a_search_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValueError):
        Search(**({"goal": 0.9, "low": 4, "high": 400} | changes))
