"""Intervals on synthetic values whose truth is known: they must hold the truth as often as they promise."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from loadtests.statistics import (
    mean_interval,
    quantile_interval,
    quantile_of,
    rate_of,
    requests_needed,
    share_interval,
    share_of,
)
from loadtests.statistics.dependence import effective_size
from loadtests.statistics.distributions import beta_cdf, beta_quantile, binomial_cdf, t_quantile

RUNS = 600
#: Of 600 intervals at 95%, fewer than this many hold the truth with a chance below 1 in 10,000.
ENOUGH = 546


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp(rng.normal(size=n))


def pareto(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1 + rng.pareto(1.5, size=n)


def queued(rng: np.random.Generator, n: int, correlation: float = 0.8) -> np.ndarray:
    """Log-normal values, each one hanging on the one before as in a queue."""
    noise = rng.normal(size=n) * math.sqrt(1 - correlation**2)
    values = np.empty(n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = correlation * values[i - 1] + noise[i]
    return np.exp(values)


def lognormal_quantile(q: float) -> float:
    return math.exp(NormalDist().inv_cdf(q))


def test_distributions_by_known_values():
    # tables: P(B ≤ 2), 10 trials at 0.3; Clopper–Pearson of 0 in 20; t at 97.5% with 9 degrees
    assert binomial_cdf(2, 10, 0.3) == pytest.approx(0.3827827864, abs=1e-9)
    assert beta_quantile(0.975, 1, 20) == pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-9)
    assert t_quantile(0.975, 9) == pytest.approx(2.2621571628, abs=1e-6)
    assert t_quantile(0.025, 9) == pytest.approx(-2.2621571628, abs=1e-6)
    assert t_quantile(0.95, 1e6) == pytest.approx(NormalDist().inv_cdf(0.95), abs=1e-4)
    assert beta_cdf(0.5, 3, 3) == pytest.approx(0.5)
    n, p = 50, 0.07
    for k in range(n):
        exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
        assert binomial_cdf(k, n, p) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    ("draw", "q", "n", "truth"),
    [
        (lognormal, 0.5, 40, lognormal_quantile(0.5)),
        (lognormal, 0.9, 200, lognormal_quantile(0.9)),
        (lognormal, 0.99, 600, lognormal_quantile(0.99)),
        (pareto, 0.95, 300, 0.05 ** (-1 / 1.5)),
        (queued, 0.5, 600, lognormal_quantile(0.5)),
        (queued, 0.9, 600, lognormal_quantile(0.9)),
    ],
    ids=["p50", "p90", "p99", "heavy-tail", "queued-p50", "queued-p90"],
)
def test_percentile_intervals_hold_the_truth(draw, q, n, truth):
    rng = np.random.default_rng(1)
    held, widths = 0, []
    for _ in range(RUNS):
        found = quantile_interval(draw(rng, n), q)
        assert found is not None and found.low is not None
        held += found.low <= truth <= (math.inf if found.high is None else found.high)
        widths.append(math.inf if found.high is None else found.high - found.low)
    # Queued values: the dependence itself is estimated, which may cost a little.
    assert held >= (ENOUGH if draw is not queued else RUNS * 0.91), held
    # and are no wider than the asymptotic interval suggests: an interval of everything would hold always
    if draw is lognormal:
        density = NormalDist().pdf(NormalDist().inv_cdf(q)) / truth
        ideal = 2 * 1.96 * math.sqrt(q * (1 - q) / n) / density
        assert np.median(widths) < 2.2 * ideal


def test_without_regard_to_dependence_the_intervals_would_be_too_narrow():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        values = queued(rng, 600)
        found = quantile_interval(rng.permutation(values), 0.5)  # its order forgotten
        held += found.low <= 1 <= found.high
    assert held < 170


def test_a_p99_of_few_requests_has_no_upper_end():
    assert requests_needed(0.99) == 368 and requests_needed(0.5) == 6
    values = np.random.default_rng(3).normal(size=367)
    found = quantile_interval(values, 0.99)
    assert found.high is None and found.low is not None
    assert quantile_interval(np.arange(5.0), 0.5) is not None
    assert quantile_interval([], 0.5) is None
    assert quantile_interval([7.0], 0.5).value == 7.0


def test_more_confidence_is_a_wider_interval():
    at = quantile_of(np.random.default_rng(4).normal(size=500), 0.9)
    narrow, wide = at(0.5), at(0.999)
    assert wide.low < narrow.low <= narrow.value <= narrow.high < wide.high


@pytest.mark.parametrize(("share", "n"), [(0.9, 60), (0.99, 150), (0.5, 30)])
def test_share_intervals_hold_the_truth(share, n):
    rng = np.random.default_rng(5)
    held = sum(
        found.low <= share <= found.high
        for found in (share_interval(int(rng.binomial(n, share)), n) for _ in range(RUNS))
    )
    assert held >= ENOUGH


def test_shares_at_the_edges():
    none, all_of = share_interval(0, 20), share_interval(20, 20)
    assert (none.low, all_of.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20)) and all_of.low == pytest.approx(0.025 ** (1 / 20))
    assert share_interval(0, 0) is None and share_of([])(0.95) is None


def test_flags_that_come_in_clusters_are_worth_less():
    scattered = np.tile([True] * 9 + [False], 40)
    clustered = np.repeat([True, True, True, True, True, True, True, True, True, False], 40)
    narrow, wide = share_of(scattered)(0.95), share_of(clustered)(0.95)
    assert narrow.value == wide.value == pytest.approx(0.9)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_mean_and_rate_intervals_hold_the_truth():
    rng = np.random.default_rng(6)
    held = sum(
        found.low <= 5 <= found.high for found in (mean_interval(rng.normal(5, 2, size=25)) for _ in range(RUNS))
    )
    assert held >= ENOUGH
    held = sum(
        found.low <= 4 <= found.high for found in (rate_of(rng.poisson(4, size=30))(0.95) for _ in range(RUNS))
    )
    assert held >= ENOUGH - 12  # counts are not normal
    assert mean_interval([1.0]).low is None and mean_interval([]) is None
    assert rate_of([0.0, 0.1, 0.0, 0.0])(0.95).low == 0.0


def test_effective_size():
    rng = np.random.default_rng(7)
    assert effective_size(np.ones(50)) == 50
    assert effective_size(rng.normal(size=4000)) > 2800
    # AR(1) with 0.8 has an autocorrelation time of 1.8 / 0.2 = 9
    assert 250 < effective_size(np.log(queued(rng, 4000))) < 700
    assert effective_size(np.arange(3.0)) == 3
