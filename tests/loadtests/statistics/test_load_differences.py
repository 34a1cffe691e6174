"""The regression test on synthetic runs: rarely an alarm where nothing got worse, and one where it did."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_load_intervals import lognormal, queued

from loadtests.statistics import (
    Interval,
    absolute_change,
    compare,
    holm,
    mean_of,
    quantile_of,
    relative_change,
    share_of,
)

LEVEL = 0.05
RUNS = 300
#: Of 300 pairs of equal runs, more alarms than this at 5% come with a chance below 1 in 1,000.
MOST = 27


def p_of(base: np.ndarray, new: np.ndarray, q: float, threshold: float = 0.0) -> float:
    found = compare(
        quantile_of(base, q), quantile_of(new, q), relative_change,
        threshold=threshold, higher_is_worse=True, confidence=0.95,
    )  # fmt: skip
    assert found is not None
    return found.p


@pytest.mark.parametrize(
    ("draw", "n", "q"),
    [(lognormal, 60, 0.5), (lognormal, 300, 0.9), (lognormal, 900, 0.99), (queued, 600, 0.5), (queued, 900, 0.9)],
    ids=["p50", "p90", "p99", "queued-p50", "queued-p90"],
)
def test_equal_runs_rarely_alarm(draw, n, q):
    rng = np.random.default_rng(11)
    alarms = sum(p_of(draw(rng, n), draw(rng, n), q) <= LEVEL for _ in range(RUNS))
    assert alarms <= MOST, alarms


def test_all_figures_together_rarely_alarm():
    """Twelve questions about two equal runs: any alarm at all at most as often as the level says."""
    rng = np.random.default_rng(12)
    alarms = 0
    for _ in range(80):
        found = {}
        for model in range(3):
            base, new = lognormal(rng, 250), lognormal(rng, 250)
            for q in (0.5, 0.75, 0.9, 0.95):
                found[f"{model} {q}"] = p_of(base, new, q)
        alarms += bool(holm(found, LEVEL))
    assert alarms <= 10, alarms


def test_at_the_threshold_itself_there_is_no_alarm():
    rng = np.random.default_rng(13)
    alarms = sum(p_of(lognormal(rng, 300), 1.1 * lognormal(rng, 300), 0.5, 0.1) <= LEVEL for _ in range(RUNS))
    assert alarms <= MOST, alarms


def test_a_real_regression_is_found():
    rng = np.random.default_rng(14)
    half = [np.exp(0.3 * rng.normal(size=400)) for _ in range(60)]
    found = sum(p_of(base, 1.3 * new, 0.5, 0.1) <= LEVEL / 20 for base, new in zip(half[::2], half[1::2], strict=True))
    assert found >= 27


def test_an_improvement_is_no_regression():
    rng = np.random.default_rng(15)
    assert p_of(lognormal(rng, 500), 0.5 * lognormal(rng, 500), 0.5) == 1.0


def test_too_few_requests_cannot_decide():
    rng = np.random.default_rng(16)
    assert p_of(lognormal(rng, 40), 10 * lognormal(rng, 40), 0.99) > LEVEL


def test_intervals_of_the_change_hold_the_truth():
    rng = np.random.default_rng(17)
    held = 0
    for _ in range(RUNS):
        found = compare(
            quantile_of(lognormal(rng, 200), 0.9), quantile_of(1.25 * lognormal(rng, 200), 0.9), relative_change,
            threshold=0, higher_is_worse=True, confidence=0.95,
        )  # fmt: skip
        held += found.change.low <= 0.25 <= found.change.high
    assert held >= RUNS * 0.91, held


def test_shares_and_means_know_which_way_is_worse():
    good, bad = np.tile([True] * 99 + [False], 5), np.tile([True] * 80 + [False] * 20, 5)
    rng = np.random.default_rng(18)
    good, bad = rng.permutation(good), rng.permutation(bad)
    options = {"threshold": 0.02, "confidence": 0.95}
    fallen = compare(share_of(good), share_of(bad), absolute_change, higher_is_worse=False, **options)
    risen = compare(share_of(bad), share_of(good), absolute_change, higher_is_worse=False, **options)
    assert fallen.p < 1e-3 and risen.p == 1.0
    assert fallen.change.value == pytest.approx(-0.19)
    dearer = compare(
        mean_of(rng.normal(1, 0.1, 200)), mean_of(rng.normal(2, 0.1, 200)), relative_change,
        threshold=0.05, higher_is_worse=True, confidence=0.95,
    )  # fmt: skip
    assert dearer.p < 1e-6 and dearer.change.value == pytest.approx(1, abs=0.05)
    assert compare(share_of([]), share_of(bad), absolute_change, higher_is_worse=False, **options) is None


def test_changes_of_nothing():
    nothing, something = Interval(0.0, 0.0, 0.1), Interval(2.0, 1.0, 3.0)
    assert relative_change(nothing, nothing).value == 0
    assert relative_change(nothing, something).value == math.inf
    assert relative_change(something, nothing).value == -1
    open_end = relative_change(Interval(1.0, 0.9, None), something)
    assert open_end.low is None and open_end.high is not None


def test_holm_divides_the_level():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.5}, 0.05) == {"a", "b"}
    assert holm({"a": 0.02, "b": 0.02, "c": 0.02}, 0.05) == frozenset()
    assert holm({}, 0.05) == frozenset()
