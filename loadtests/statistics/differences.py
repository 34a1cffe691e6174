"""Whether a figure has become worse, with a false-alarm rate that is held for all figures together.

A figure's change lies between ends that come from the intervals of both runs ("square and add", Zou & Donner 2008,
Statistics in Medicine 27:1693). The p-value of "worse by more than the threshold" is the smallest level at which the
change is surely above it; Holm's procedure then keeps the chance of any false alarm among all questions at most at
the level. Holds for what varies within a run. What differs from one start of a fleet to the next is in no single run:
thresholds are for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtests.statistics.intervals import Estimate, Interval

_SMALLEST, _LARGEST = 1e-9, 0.4999


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure changed from base to new; above 0 is an increase. Ends are None where they are not known."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure in both runs, its change with an interval, and p of "worse by more than the threshold" (1: in no
    way).
    """

    base: Interval
    new: Interval
    change: Change
    p: float


def relative_change(base: Interval, new: Interval) -> Change:
    """new / base − 1, computed on the scale of logarithms."""
    if base.value <= 0 or new.value <= 0:
        # from nothing to something there is no ratio
        value = 0.0 if base.value == new.value else (math.inf if new.value > base.value else -1.0)
        return Change(value, None, None)
    centre = math.log(new.value / base.value)
    low = _added(_log_gap(new.value, new.low), _log_gap(base.high, base.value))
    high = _added(_log_gap(new.high, new.value), _log_gap(base.value, base.low))
    return Change(
        math.expm1(centre),
        None if low is None else math.expm1(centre - low),
        None if high is None else math.expm1(min(700.0, centre + high)),
    )


def absolute_change(base: Interval, new: Interval) -> Change:
    """new − base, for shares."""
    value = new.value - base.value
    low = _added(_gap(new.value, new.low), _gap(base.high, base.value))
    high = _added(_gap(new.high, new.value), _gap(base.value, base.low))
    return Change(value, None if low is None else value - low, None if high is None else value + high)


def compare(
    base: Estimate,
    new: Estimate,
    change: Callable[[Interval, Interval], Change],
    *,
    threshold: float,
    higher_is_worse: bool,
    confidence: float,
) -> Comparison | None:
    """The change at the confidence and the p-value; None where a run has no such figure.

    threshold: at least 0, in the unit of the change.
    """
    first, second = base(confidence), new(confidence)
    if first is None or second is None:
        return None

    def surely_worse(p: float) -> bool:
        # one-sided at p: the end of a two-sided interval at 1 − 2p
        before, after = base(1.0 - 2.0 * p), new(1.0 - 2.0 * p)
        if before is None or after is None:
            return False
        found = change(before, after)
        end = found.low if higher_is_worse else found.high
        return end is not None and (end > threshold if higher_is_worse else end < -threshold)

    return Comparison(first, second, change(first, second), _smallest_level(surely_worse))


def _smallest_level(holds: Callable[[float], bool]) -> float:
    """The smallest p at which a condition holds that also holds above it; 1 where it holds at none."""
    if not holds(_LARGEST):
        return 1.0
    if holds(_SMALLEST):
        return _SMALLEST
    low, high = math.log(_SMALLEST), math.log(_LARGEST)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def holm(p_values: Mapping[str, float], level: float) -> frozenset[str]:
    """Names of the questions answered yes, with a chance of any wrong yes of at most the level (Holm 1979)."""
    found: list[str] = []
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > level / (len(p_values) - rank):
            break
        found.append(name)
    return frozenset(found)


def _gap(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else max(0.0, above - below)


def _log_gap(above: float | None, below: float | None) -> float | None:
    if above is None or below is None or below <= 0 or above <= 0:
        return None
    return max(0.0, math.log(above / below))


def _added(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else math.hypot(first, second)
