"""When exactly they come: renewal processes bent to a rate that changes over time. Pure; randomness is passed in.

Gaps are drawn with mean 1, and the times at which the integral of the rate reaches their sums are the arrivals (time
rescaling, e.g. Daley and Vere-Jones, An Introduction to the Theory of Point Processes, ch. 7.4). So another rate moves
the arrivals and changes nothing else, and a stage, a day's curve and burstiness combine freely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.pacing import Closed, Diurnal, Even, Gamma, Pacing, Piecewise, Poisson, Trace, rate_at
from loadtests.stages import Span

_BLOCK = 256
#: Pieces that a curve is cut into; a sinusoid is then met to 1e-6 of its height.
_PIECES = 2000


@dataclass(frozen=True)
class Rate:
    """Arrivals per second over time, linear within adjoining segments; it may jump between them."""

    starts: np.ndarray
    ends: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def total(self) -> float:
        """Expected arrivals in all."""
        return float(self._areas().sum())

    def times(self, unit: np.ndarray) -> np.ndarray:
        """The moments at which the integral of the rate reaches each of `unit`, which are ascending and below
        `total`."""
        areas = self._areas()
        upto = np.cumsum(areas)
        index = np.minimum(np.searchsorted(upto, unit, side="right"), len(areas) - 1)
        rest = unit - (upto[index] - areas[index])
        low, slope = self.left[index], (self.right[index] - self.left[index]) / (self.ends[index] - self.starts[index])
        root = low + np.sqrt(np.maximum(low * low + 2 * slope * rest, 0.0))
        # The form of the quadratic's solution that does not cancel; where the rate is 0 nothing is left to go.
        step = np.divide(2 * rest, root, out=np.zeros_like(rest), where=root > 0)
        return self.starts[index] + step

    def _areas(self) -> np.ndarray:
        return (self.ends - self.starts) * (self.left + self.right) / 2


def arrival_times(process: Pacing, course: Sequence[Span], rng: np.random.Generator) -> np.ndarray:
    """Times of an open-loop process in seconds, ascending, within the course's stages.

    Not for traces, which bring their own times, nor for closed loops, which have none.
    """
    rate = rate_of(process, course)
    unit = unit_times(cv_of(process), rate.total, rng)
    return rate.times(unit)


def rate_of(process: Pacing, course: Sequence[Span]) -> Rate:
    """A process's rate times the stages' factors."""
    level, edges = _level(process, course[-1].end_s)
    pieces: list[tuple[float, float, float, float]] = []
    for span in course:
        inner = [at for at in edges if span.start_s < at < span.end_s]
        # Two factors that both change make a parabola; then the stage is cut finer.
        if span.left != span.right and isinstance(process, Piecewise):
            inner = sorted({*inner, *np.linspace(span.start_s, span.end_s, 257)[1:-1].tolist()})
        bounds = [span.start_s, *inner, span.end_s]
        for start, end in zip(bounds, bounds[1:], strict=False):
            pieces.append((start, end, level(start) * span.factor(start), level(end) * span.factor(end)))
    starts, ends, left, right = (np.array(column, dtype=float) for column in zip(*pieces, strict=True))
    return Rate(starts, ends, left, right)


def cv_of(process: Pacing) -> float:
    """Coefficient of variation of a process's gaps."""
    match process:
        case Even():
            return 0.0
        case Poisson():
            return 1.0
        case Gamma(cv=cv) | Diurnal(cv=cv) | Piecewise(cv=cv):
            return cv
        case _:
            raise TypeError(f"{process.process} arrivals are not drawn")


def unit_times(cv: float, until: float, rng: np.random.Generator) -> np.ndarray:
    """Sums of gaps with mean 1 and this coefficient of variation, all below `until`.

    Even gaps begin at a random phase, so that two models with the same rate do not march in step.
    """
    draw = unit_gaps(cv, rng)
    parts: list[np.ndarray] = []
    last = float(rng.random()) - 1.0 if cv == 0 else 0.0
    while last < until:
        # Blocks of a fixed size: a longer run begins with the very arrivals of a shorter one.
        block = last + np.cumsum(draw(_BLOCK))
        parts.append(block)
        last = float(block[-1])
    joined = np.concatenate(parts) if parts else np.empty(0)
    return joined[joined < until]


def unit_gaps(cv: float, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Draws that many gaps with mean 1: even, exponential, or gamma with shape 1/cv² and scale cv²."""
    if cv == 0:
        return np.ones
    if cv == 1:
        return lambda count: rng.exponential(1.0, size=count)
    return lambda count: rng.gamma(1 / cv**2, cv**2, size=count)


def _level(process: Pacing, end_s: float) -> tuple[Callable[[float], float], list[float]]:
    """The rate before the stages' factors as a function of time, and where it may not be taken for linear."""
    match process:
        case Even(rate_per_s=rate) | Poisson(rate_per_s=rate) | Gamma(rate_per_s=rate):
            return (lambda at: rate), []
        case Diurnal():
            turn = 2 * math.pi / process.period_s
            edges = np.linspace(0.0, end_s, max(2, math.ceil(_PIECES * min(1.0, end_s / process.period_s)) + 2))
            return (
                lambda at: process.rate_per_s * (1 + process.amplitude * math.cos(turn * (at - process.peak_s))),
                edges.tolist(),
            )
        case Piecewise():
            return (lambda at: rate_at(process, at)), [point.at_s for point in process.points]
        case Trace() | Closed():
            raise TypeError(f"{process.process} arrivals are not drawn")
