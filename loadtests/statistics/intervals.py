"""Confidence intervals of percentiles, shares, means and rates.

Values come in the order of their time, because how much they tell depends on how they hang together
(`dependence`). No shape of the distribution is assumed for percentiles and shares. Each estimate is a function of the
confidence, so that what it rests on is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.statistics.dependence import effective_size
from loadtests.statistics.distributions import beta_quantile, binomial_cdf, t_quantile

CONFIDENCE = 0.95
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and between what it lies with the confidence asked for; an end that is None is not known: too few."""

    value: float
    low: float | None
    high: float | None


#: An estimate: its interval at any confidence in (0, 1); None where there is nothing to estimate from.
Estimate = Callable[[float], Interval | None]


def quantile_of(values: Values, q: float) -> Estimate:
    """The q-quantile (linear interpolation between neighbours), with intervals by order statistics.

    The number of values below the true quantile is binomial, so that the chance of the l-th smallest value being above
    it can be computed, whatever the distribution (David & Nagaraja, Order Statistics, 7.1). Where values depend on each
    other, the ranks are those of as many independent ones as they are worth. An end is None where even the smallest or
    largest value is not surely beyond the quantile: a p99 of 100 requests has no upper end.
    """
    array = np.asarray(values, dtype=float)
    if not len(array):
        return lambda confidence: None
    ordered = np.sort(array)
    value = float(np.quantile(ordered, q))
    worth = effective_size((array <= value).astype(float))

    def at(confidence: float) -> Interval:
        low, high = _ranks(len(array), worth, q, (1.0 - confidence) / 2)
        return Interval(
            value,
            None if low is None else min(value, float(ordered[low - 1])),
            None if high is None else max(value, float(ordered[high - 1])),
        )

    return at


def quantile_interval(values: Values, q: float, confidence: float = CONFIDENCE) -> Interval | None:
    """`quantile_of` at one confidence."""
    return quantile_of(values, q)(confidence)


def _ranks(n: int, worth: float, q: float, tail: float) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the interval's ends among n values that are worth so many independent ones."""
    limit = math.ceil(worth)
    # the largest l with P(B < l) ≤ tail, and the smallest u with P(B ≥ u) ≤ tail
    low = _first(lambda k: binomial_cdf(k, worth, q) > tail, limit)
    high = _first(lambda k: 1.0 - binomial_cdf(k, worth, q) <= tail, limit) + 1
    scale = n / worth
    return (
        max(1, math.floor(low * scale)) if low >= 1 else None,
        min(n, math.ceil(high * scale)) if high <= worth else None,
    )


def _first(holds: Callable[[int], bool], limit: int) -> int:
    """The smallest k in 0…limit from which on a monotone condition holds; limit if it never does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def requests_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """How many independent requests give the q-quantile an upper end."""
    return math.ceil(math.log((1.0 - confidence) / 2) / math.log(q))


def share_interval(
    met: float, total: float, confidence: float = CONFIDENCE, worth: float | None = None
) -> Interval | None:
    """A share and its Clopper–Pearson interval, which holds at least the confidence; None of nothing.

    worth: how many independent ones the total counts as (default: all of them).
    """
    if total <= 0:
        return None
    tail = (1.0 - confidence) / 2
    n = total if worth is None else min(total, worth)
    hits = met / total * n
    low = 0.0 if met <= 0 else beta_quantile(tail, hits, n - hits + 1)
    high = 1.0 if met >= total else beta_quantile(1.0 - tail, hits + 1, n - hits)
    return Interval(met / total, low, high)


def share_of(flags: Sequence[bool] | np.ndarray) -> Estimate:
    """The share of yes among yes and no in the order of time, with what they are worth."""
    array = np.asarray(flags, dtype=float)
    worth = effective_size(array)
    return lambda confidence: share_interval(float(array.sum()), len(array), confidence, worth)


def mean_of(values: Values) -> Estimate:
    """The mean, with intervals by Student's t over what the values are worth."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        return lambda confidence: None
    value = float(array.mean())
    if len(array) < 2:
        return lambda confidence: Interval(value, None, None)
    worth = max(2.0, effective_size(array))
    error = float(array.std(ddof=1)) / math.sqrt(worth)

    def at(confidence: float) -> Interval:
        half = t_quantile(0.5 + confidence / 2, worth - 1) * error
        return Interval(value, value - half, value + half)

    return at


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Interval | None:
    """`mean_of` at one confidence."""
    return mean_of(values)(confidence)


def rate_of(per_block: Values) -> Estimate:
    """A rate from its values in consecutive blocks of equal length (batch means); never below 0."""
    mean = mean_of(per_block)

    def at(confidence: float) -> Interval | None:
        found = mean(confidence)
        if found is None or found.low is None:
            return found
        return Interval(found.value, max(0.0, found.low), found.high)

    return at


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The same estimate in another unit; factor > 0."""

    def at(confidence: float) -> Interval | None:
        found = estimate(confidence)
        if found is None:
            return None
        low, high = found.low, found.high
        return Interval(
            found.value * factor, None if low is None else low * factor, None if high is None else high * factor
        )

    return at


def quotient(above: Estimate, below: Estimate) -> Estimate:
    """above / below, both positive, with the ends of both added in squares on the scale of logarithms."""

    def at(confidence: float) -> Interval | None:
        first, second = above(confidence), below(confidence)
        if first is None or second is None or second.value <= 0:
            return None
        value = first.value / second.value
        if value <= 0:
            return Interval(value, None, None)
        down = _added_logs((first.value, first.low), (second.high, second.value))
        up = _added_logs((first.high, first.value), (second.value, second.low))
        return Interval(
            value, None if down is None else value * math.exp(-down), None if up is None else value * math.exp(up)
        )

    return at


def _added_logs(*pairs: tuple[float | None, float | None]) -> float | None:
    logs = []
    for above, below in pairs:
        if above is None or below is None or above <= 0 or below <= 0:
            return None
        logs.append(max(0.0, math.log(above / below)))
    return math.hypot(*logs)
