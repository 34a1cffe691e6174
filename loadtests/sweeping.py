"""The search for the highest rate that meets the objectives: which rates to try, and what was found.

The runner tries a rate, asks what is next, and stops when there is nothing. The statistics are in
`loadtests.statistics`; this module knows scenarios and records. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from loadtests import metrics
from loadtests.errors import ArgumentError
from loadtests.passes import Pass
from loadtests.records import Record
from loadtests.runinfo import SweepFacts, SweepStep
from loadtests.scenario import Scenario, Slo, Sweep, at_rate
from loadtests.statistics import Count, Found, Search, Trial, next_rate
from loadtests.statistics.dependence import effective_size
from loadtests.statistics.search import judge


@dataclass
class SweepSearch:
    """One search. slos: the objectives of each model that has any."""

    scenario: Scenario
    slos: Mapping[str, Slo]
    _trials: list[Trial] = field(default_factory=list)
    _steps: list[SweepStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        sweep = self.scenario.sweep
        assert sweep is not None
        if not self.slos:
            raise ArgumentError("a sweep needs objectives: give models an slo, in the scenario or by --context")
        self._sweep: Sweep = sweep
        self._search = Search(
            goal=self.scenario.slo_attainment, low=sweep.low_per_s, high=sweep.high_per_s, max_trials=sweep.steps
        )

    def next(self) -> Pass | None:
        """The step to run now; None at the end of the search."""
        number = len(self._trials) + 1
        rate = self._next_rate(number)
        if rate is None:
            return None
        scenario = at_rate(self.scenario, self._sweep, rate, number)
        return Pass(f"step {number}: {rate:.3g}/s", "step", scenario, number, rate_per_s=rate)

    def take(self, step: Pass, records: Iterable[Record], valid: bool) -> None:
        """What came of a step. One that the generator spoilt is recorded, and ends the search: it would spoil every
        higher rate too, and a lower one proves nothing about the target's limit."""
        measured = sorted((record for record in records if not record.warmup), key=lambda record: record.sent)
        counts = {}
        for name, slo in self.slos.items():
            good = [metrics.is_good(record, slo) for record in measured if record.model == name]
            # in the order of sending: what waits in one queue is slow together and counts as fewer requests
            worth = effective_size(np.array(good, dtype=float)) if good else 0.0
            counts[name] = Count(met=sum(good), total=len(good), worth=worth)
        assert step.rate_per_s is not None
        self._trials.append(Trial(rate_per_s=step.rate_per_s, counts=counts))
        shares = [count.met / count.total for count in counts.values() if count.total]
        self._steps.append(
            SweepStep(
                stage=step.name, rate_per_s=step.rate_per_s, requests=len(measured),
                attained=min(shares) if shares else None, met=False, valid=valid,
            )
        )

    def facts(self) -> SweepFacts:
        """Everything that was tried, and the answer."""
        met = {rate for rate in {trial.rate_per_s for trial in self._trials} if self._met(rate)}
        steps = tuple(step.model_copy(update={"met": step.rate_per_s in met and step.valid}) for step in self._steps)
        highest = max((step.rate_per_s for step in steps if step.met), default=None)
        # What the generator spoilt says nothing about the target.
        missed = [s.rate_per_s for s in steps if s.valid and not s.met and (highest is None or s.rate_per_s > highest)]
        return SweepFacts(
            method=self._sweep.search, goal=self.scenario.slo_attainment, steps=steps, highest_met_per_s=highest,
            lowest_missed_per_s=min(missed, default=None),
        )

    def _met(self, rate: float) -> bool:
        return judge([trial for trial in self._trials if trial.rate_per_s == rate], self._search) == "met"

    def _next_rate(self, number: int) -> float | None:
        if self._steps and not self._steps[-1].valid:
            return None
        if self._sweep.search == "grid":
            rates = np.geomspace(self._sweep.low_per_s, self._sweep.high_per_s, self._sweep.steps)
            return float(rates[number - 1]) if number <= len(rates) else None
        answer = next_rate(self._trials, self._search)
        return None if isinstance(answer, Found) else float(answer)


def slos_of(scenario: Scenario, known: Mapping[str, Slo | None]) -> dict[str, Slo]:
    """The objectives of the scenario's models; its own come before the fleet's."""
    found = {name: model.slo or known.get(name) for name, model in scenario.models.items()}
    return {name: slo for name, slo in found.items() if slo is not None}
