"""The three distributions that the intervals rest on: beta, binomial and Student's t.

All of them are the regularised incomplete beta function; binomials take a number of trials that is no whole number,
because requests that depend on each other count as fewer than they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_TINY = 1e-300
_STEPS = 300


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X ≤ x) of a beta distribution with a, b > 0 (regularised incomplete beta function).

    By its continued fraction (DLMF 8.17.22), evaluated from the front (modified Lentz).
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        # there the fraction of the mirror image is the one that converges
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1.0 + term * d, 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return value


def binomial_cdf(k: float, n: float, p: float) -> float:
    """P(B ≤ k) for n trials with chance p each; n may be fractional, k counts as its whole part."""
    k = math.floor(k)
    if k < 0:
        return 0.0
    return 1.0 if k >= n else beta_cdf(1.0 - p, n - k, k + 1.0)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x with P(X ≤ x) = probability."""
    return _root(lambda x: beta_cdf(x, a, b) - probability, 0.0, 1.0)


def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T ≤ t) = probability, Student's t with so many degrees of freedom (> 0)."""
    if probability < 0.5:
        return -t_quantile(1.0 - probability, degrees)
    if probability == 0.5:
        return 0.0
    # P(|T| > t) = I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t²)
    x = beta_quantile(2.0 * (1.0 - probability), degrees / 2.0, 0.5)
    return math.sqrt(degrees * (1.0 / max(x, _TINY) - 1.0))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function crosses zero, by halving."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
        if high - low < 1e-13 * max(1.0, abs(high)):
            break
    return (low + high) / 2
