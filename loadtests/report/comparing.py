"""Two runs held against each other: which figure has surely become worse, by more than anybody minds. Pure.

All questions are asked at once, and the chance of any false alarm among them is held at the level (see
`loadtests.statistics.differences`). What differs between two starts of the same fleet is in no single run: thresholds
are for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from loadtests.errors import ArgumentError
from loadtests.report.build import Inputs, mix_sample, model_sample, report_of
from loadtests.report.estimates import Sample
from loadtests.report.figurelist import KEYS, MIX_FIGURES, MODEL_FIGURES, Figure
from loadtests.report.model import Report
from loadtests.report.parts import Estimated, Part
from loadtests.report.window import window_of
from loadtests.statistics import CONFIDENCE, Interval, compare, holm
from loadtests.strict import unknown_key

#: Chance of any false alarm in one comparison.
LEVEL = 0.05
Outcome = Literal["regression", "improvement", "unchanged", "undecided"]


class Change(Part):
    """How a figure changed; an end is None where too few requests tell it. value None: from nothing to something."""

    value: float | None
    low: float | None
    high: float | None


class Difference(Part):
    """One figure of one model, or of the mix (scope "all"), in both runs.

    change: relative, or for shares the difference. regression: worse by more than the threshold, surely; unchanged:
    surely within the threshold; improvement: surely better by more; undecided: none of these.
    """

    scope: str
    key: str
    title: str
    unit: str
    base: Estimated
    new: Estimated
    change: Change
    threshold: float
    p: float
    outcome: Outcome


class Comparison(Part):
    """compare.json. result: regression makes the command exit with 1, invalid (one of the runs is) with 3."""

    format: int = 1
    result: Literal["no regression", "regression", "invalid"]
    reasons: list[str]
    level: float
    confidence: float
    notes: list[str]
    differences: list[Difference]


def thresholds(given: Mapping[str, float]) -> dict[str, float]:
    """Every figure's threshold, with those given. Raises ArgumentError for one that does not exist or is below 0."""
    for key, value in given.items():
        if key not in KEYS:
            raise ArgumentError("--threshold: " + unknown_key(key, KEYS)["text"].replace("key", "figure", 1))
        if value < 0 or math.isnan(value):
            raise ArgumentError(f"--threshold {key}={value:g}: a threshold is at least 0")
    return {figure.key: figure.threshold for figure in (*MODEL_FIGURES, *MIX_FIGURES)} | dict(given)


def compare_runs(base: Inputs, new: Inputs, limits: Mapping[str, float], level: float = LEVEL) -> Comparison:
    """The models that both runs have, and the mix if it is of the same models."""
    reports = (report_of(base), report_of(new))
    names = [name for name in reports[0].models if name in reports[1].models]
    asked = []
    for name in names:
        pair = (_model(name, base), _model(name, new))
        asked += [found for figure in MODEL_FIGURES if (found := _ask(name, figure, *pair, limits[figure.key]))]
    if reports[0].models.keys() == reports[1].models.keys():
        pair = (_mix(base, reports[0]), _mix(new, reports[1]))
        asked += [found for figure in MIX_FIGURES if (found := _ask("all", figure, *pair, limits[figure.key]))]
    worse = holm({f"{one.scope}/{one.key}": one.p for one in asked}, level)
    differences = [
        one.model_copy(update={"outcome": "regression"}) if f"{one.scope}/{one.key}" in worse else one for one in asked
    ]
    invalid = [
        f"{which}: {reason}"
        for which, report in zip(("base", "new"), reports, strict=True)
        if report.verdict.result == "invalid"
        for reason in report.verdict.reasons
    ]
    found = [sentence(one) for one in differences if one.outcome == "regression"]
    result = "invalid" if invalid else "regression" if found else "no regression"
    return Comparison(
        result=result, reasons=invalid or found, level=level, confidence=CONFIDENCE, notes=_notes(base, new),
        differences=differences,
    )  # fmt: skip


def sentence(one: Difference) -> str:
    """A regression in words."""
    figure = next(figure for figure in (*MODEL_FIGURES, *MIX_FIGURES) if figure.key == one.key)
    text = figure.spread(one.change.value) if one.change.value is not None else "from nothing"
    return f"{one.scope}: {one.title} {text}, surely more than {figure.spread(_worse(figure, one.threshold))}"


def _worse(figure: Figure, threshold: float) -> float:
    return threshold if figure.higher_is_worse else -threshold


def _model(name: str, inputs: Inputs) -> Sample:
    records = [record for record in inputs.records if record.model == name]
    return model_sample(name, records, inputs, inputs.slos(), window_of(inputs.run))


def _mix(inputs: Inputs, report: Report) -> Sample:
    return mix_sample(inputs, inputs.slos(), window_of(inputs.run), report.totals.cost_usd)


def _ask(scope: str, figure: Figure, base: Sample, new: Sample, threshold: float) -> Difference | None:
    found = compare(
        figure.estimate(base), figure.estimate(new), figure.change, threshold=threshold,
        higher_is_worse=figure.higher_is_worse, confidence=CONFIDENCE,
    )  # fmt: skip
    if found is None:
        return None
    change = Change(value=_finite(found.change.value), low=found.change.low, high=found.change.high)
    return Difference(
        scope=scope, key=figure.key, title=figure.title, unit=figure.unit, base=_estimated(found.base),
        new=_estimated(found.new), change=change, threshold=threshold, p=found.p,
        outcome=_outcome(change, threshold, figure.higher_is_worse),
    )  # fmt: skip


def _outcome(change: Change, threshold: float, higher_is_worse: bool) -> Outcome:
    """Without the regressions, which are decided for all figures together."""
    low, high = (change.low, change.high) if higher_is_worse else (_minus(change.high), _minus(change.low))
    if high is not None and high < -threshold:
        return "improvement"
    within = low is not None and high is not None and low >= -threshold and high <= threshold
    return "unchanged" if within else "undecided"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _estimated(found: Interval) -> Estimated:
    return Estimated(value=found.value, low=found.low, high=found.high)


def _notes(base: Inputs, new: Inputs) -> list[str]:
    """What else differs than the fleet's behaviour."""
    one, other = base.run, new.run
    pairs: list[tuple[str, object, object]] = [
        ("scenario", one.scenario.name, other.scenario.name),
        ("what the scenario says", _scenario(base), _scenario(new)),
        ("seed", one.seed, other.seed),
        ("kind of run", one.kind, other.kind),
        ("load", one.loop, other.loop),
        ("fleet", base.context.fleet.name if base.context else None, new.context.fleet.name if new.context else None),
        ("machine", base.context.machine if base.context else None, new.context.machine if new.context else None),
        ("price book", base.context.price_book if base.context else None,
         new.context.price_book if new.context else None),
    ]  # fmt: skip
    found = []
    for name, before, after in pairs:
        if before != after:
            short = isinstance(before, str | int) and isinstance(after, str | int)
            found.append(f"Not the same {name}" + (f": {before}, {after}." if short else "."))
    gone = sorted(base.run.scenario.models.keys() ^ new.run.scenario.models.keys())
    if gone:
        found.append(f"Only in one of the runs: {', '.join(gone)}.")
    return found


def _scenario(inputs: Inputs) -> tuple[object, ...]:
    """What shapes the traffic, but for its name and seed."""
    said = inputs.run.scenario.model_dump(mode="json")
    return tuple((key, repr(value)) for key, value in said.items() if key not in ("name", "description", "seed"))
