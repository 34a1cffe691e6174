"""The highest rate that still meets the objectives, found by bisection with confidence.

`next_rate` is a pure function of what has been tried: the runner asks it for a rate, tries it, and asks again. A rate
counts as met only if the share of good requests of every model is above the goal with confidence, where the chance of
error is divided among all trials that the search may make; a rate that stays undecided after its repeats counts as
missed. It is assumed that a higher rate does not make anything better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.statistics.intervals import share_interval

Answer = Literal["met", "missed", "undecided"]
_SAME = 1e-6


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one model that met every objective, of all. worth: how many independent ones they count as."""

    met: int
    total: int
    worth: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate that was tried, arrivals per second of the whole mix, and what came of it per model."""

    rate_per_s: float
    counts: Mapping[str, Count]


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for.

    goal: share of each model's requests that must be good. low: where to begin; high: not beyond. growth: factor
    from rate to rate until one is missed. tolerance: the bracket's width, relative, at which the search ends.
    confidence: that the answer meets the goal. max_trials: all trials; max_repeats: of one undecided rate.
    """

    goal: float
    low: float
    high: float
    growth: float = 2.0
    tolerance: float = 0.05
    confidence: float = 0.95
    max_trials: int = 16
    max_repeats: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.goal <= 1:
            raise ValueError(f"goal ({self.goal:g}) is not in (0, 1]")
        if not 0 < self.low <= self.high:
            raise ValueError(f"0 < low ≤ high does not hold: {self.low:g}, {self.high:g}")
        if self.growth <= 1 or self.tolerance <= 0 or self.max_trials < 1 or self.max_repeats < 1:
            raise ValueError("growth must be above 1, tolerance above 0, trials and repeats at least 1")


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search. highest: the highest rate met with confidence, None if none was. missed: the lowest rate
    above it that was not.
    """

    highest: float | None
    missed: float | None
    confidence: float
    trials: int
    reason: str


def next_rate(history: Sequence[Trial], search: Search) -> float | Found:
    """The rate to try next, or the end of the search."""
    answers = _answers(history, search)
    met = max((rate for rate, answer in answers.items() if answer == "met"), default=None)
    # Above a rate that was met, a lower "missed" is chance: the higher one stands.
    missed = min((r for r, answer in answers.items() if answer == "missed" and (met is None or r > met)), default=None)
    open_rate = next((rate for rate, answer in answers.items() if answer == "undecided"), None)
    if len(history) >= search.max_trials:
        return _found(met, missed, history, search, f"all {search.max_trials} trials were made")
    if open_rate is not None and (met is None or open_rate > met):
        return open_rate
    if met is None:
        return _downwards(missed, history, search)
    if missed is None:
        if met >= search.high * (1 - _SAME):
            return _found(met, None, history, search, "the highest rate allowed was met")
        return min(search.high, met * search.growth)
    if missed / met <= 1 + search.tolerance:
        return _found(met, missed, history, search, f"bracketed within {search.tolerance:.0%}")
    return math.sqrt(met * missed)


def judge(trials: Sequence[Trial], search: Search) -> Answer:
    """What trials at one rate say together."""
    # one-sided, and shared by all trials there may be
    confidence = 1.0 - 2.0 * (1.0 - search.confidence) / search.max_trials
    names = {name for trial in trials for name in trial.counts}
    answers = []
    for name in names:
        counts = [trial.counts[name] for trial in trials if name in trial.counts]
        met, total = sum(count.met for count in counts), sum(count.total for count in counts)
        worth = sum(count.total if count.worth is None else count.worth for count in counts)
        found = share_interval(met, total, confidence, worth)
        if found is None or found.low is None or found.high is None:
            answers.append("undecided")
        elif found.high < search.goal:
            return "missed"
        else:
            answers.append("met" if found.low >= search.goal else "undecided")
    return "met" if answers and all(answer == "met" for answer in answers) else "undecided"


def _answers(history: Sequence[Trial], search: Search) -> dict[float, Answer]:
    """The answer at each rate tried, in the order of the first try."""
    grouped: dict[float, list[Trial]] = {}
    for trial in history:
        key = next((rate for rate in grouped if abs(rate - trial.rate_per_s) <= _SAME * rate), trial.rate_per_s)
        grouped.setdefault(key, []).append(trial)
    answers: dict[float, Answer] = {}
    for rate, trials in grouped.items():
        answer = judge(trials, search)
        # Not sure after all repeats is not met: the search promises what it says.
        answers[rate] = "missed" if answer == "undecided" and len(trials) >= search.max_repeats else answer
    return answers


def _downwards(missed: float | None, history: Sequence[Trial], search: Search) -> float | Found:
    if missed is None:
        return search.low
    lower = missed / search.growth
    if lower < search.low / search.growth**4:
        return _found(None, missed, history, search, "no rate down to a sixteenth of the lowest was met")
    return lower


def _found(
    met: float | None, missed: float | None, history: Sequence[Trial], search: Search, reason: str
) -> Found:
    return Found(met, missed, search.confidence, len(history), reason)
