"""What happened in each stretch of a run: its stages, the rates of a sweep, each model alone and in the mix. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from loadtests import metrics
from loadtests.records import Record
from loadtests.report.estimates import Sample, shown
from loadtests.report.figurelist import MODEL_FIGURES, Figure
from loadtests.report.parts import Estimated
from loadtests.report.passmodel import (
    Contrast,
    Effect,
    Figures,
    Interference,
    RatePoint,
    Saturation,
    StageCostBasis,
    StageReport,
)
from loadtests.report.window import Window
from loadtests.runinfo import RunInfo, StageSpan, SweepStep
from loadtests.scenario import Slo
from loadtests.statistics import CONFIDENCE, compare

#: What the whole fleet cost between two moments (run seconds), USD; None where that is not known.
Bill = Callable[[float, float], float | None]
#: Below this a change is how numbers are kept, not what happened.
_ROUNDING = 1e-6


def stages(run: RunInfo, records: Sequence[Record], slos: Mapping[str, Slo | None], bill: Bill) -> list[StageReport]:
    """Every stage of the run, warm-ups too."""
    by_stage: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_stage[record.stage].append(record)
    end = run.ended_unix - run.started_unix
    return [
        StageReport(
            name=span.name, kind=span.kind, start_s=span.start_s, end_s=span.end_s, measured=span.measured,
            rate_per_s=span.rate_per_s, models=list(span.models),
            figures=figures_of(by_stage[span.name], [_within(span, end)], slos, bill),
        )
        for span in run.stages
        if span.start_s < end
    ]  # fmt: skip


def figures_of(
    records: Iterable[Record], spans: Sequence[tuple[float, float]], slos: Mapping[str, Slo | None], bill: Bill
) -> Figures:
    """Of the records that were due in these stretches; a pass's own warm-up is not in them."""
    found = sorted((r for r in records if any(a <= r.scheduled < b for a, b in spans)), key=lambda record: record.sent)
    sample = Sample(found, found, Window(tuple(spans), None), slos, None)
    length = sum(end - start for start, end in spans)
    ended = [value for record in found if record.ok and (value := metrics.e2e_ms(record)) is not None]
    good = sum(sample.good(record) for record in found)
    cost, basis = _cost(found, spans, bill)
    return Figures(
        requests=len(found),
        errors=sum(not record.ok for record in found),
        requests_per_s=len(found) / length if length else 0.0,
        good_share=shown(sample.good_share()),
        goodput_per_s=shown(sample.goodput()) if found else None,
        output_tokens_per_s=shown(sample.output_rate()) if found else None,
        **{
            f"{kind}_{name}_ms": shown(sample.quantile(kind, q))
            for kind in ("ttft", "tpot", "e2e")
            for name, q in (("p50", 0.5), ("p95", 0.95))
        },
        e2e_mean_ms=sum(ended) / len(ended) if ended else None,
        cost_per_good_request_usd=cost / good if cost is not None and good else None,
        cost_basis=basis,
    )


def _cost(
    found: Sequence[Record], spans: Sequence[tuple[float, float]], bill: Bill
) -> tuple[float | None, StageCostBasis | None]:
    parts = [bill(start, end) for start, end in spans]
    if all(part is not None for part in parts) and parts:
        return sum(part or 0.0 for part in parts), "fully_loaded"
    charged = [record.cost_usd for record in found if record.ok]
    if not charged or any(cost is None for cost in charged):
        return None, None
    return sum(cost or 0.0 for cost in charged), "charged"


def _within(span: StageSpan, end: float) -> tuple[float, float]:
    return span.start_s, max(span.start_s + 1e-3, min(span.end_s, end))


def saturation(
    run: RunInfo, records: Sequence[Record], slos: Mapping[str, Slo | None], bill: Bill
) -> Saturation | None:
    """What a sweep found; None for other runs."""
    if run.sweep is None:
        return None
    spans = {span.name: span for span in run.stages}
    by_stage: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_stage[record.stage].append(record)
    by_rate: dict[float, list[SweepStep]] = defaultdict(list)
    for step in run.sweep.steps:
        by_rate[step.rate_per_s].append(step)
    points = []
    for rate, trials in sorted(by_rate.items()):
        names = [trial.stage for trial in trials]
        points.append(
            RatePoint(
                rate_per_s=rate, trials=names, met=any(trial.met for trial in trials),
                valid=all(trial.valid for trial in trials), efficient=None,
                figures=figures_of(
                    [record for name in names for record in by_stage[name]],
                    [(spans[name].start_s, spans[name].end_s) for name in names if name in spans], slos, bill,
                ),
            )
        )  # fmt: skip
    return Saturation(
        method=run.sweep.method, goal=run.sweep.goal, highest_met_per_s=run.sweep.highest_met_per_s,
        lowest_missed_per_s=run.sweep.lowest_missed_per_s, knee_per_s=knee(points), ended=_ended(run),
        points=_marked(points),
    )  # fmt: skip


def knee(points: Sequence[RatePoint]) -> float | None:
    """The rate with the highest power, goodput / mean end-to-end time; None with fewer than three rates."""
    known = [
        (point.figures.goodput_per_s.value / point.figures.e2e_mean_ms, point.rate_per_s)
        for point in points
        if point.valid and point.figures.goodput_per_s and point.figures.e2e_mean_ms
    ]
    return max(known)[1] if len(known) >= 3 else None


def _ended(run: RunInfo) -> str:
    facts = run.sweep
    assert facts is not None
    if facts.steps and not facts.steps[-1].valid:
        return "the load generator itself could not send a higher rate as it was due; give it more --processes"
    if facts.highest_met_per_s is None:
        return "it went down as far as it may, or used up its trials"
    if facts.lowest_missed_per_s is None:
        return "every rate that was tried met the objectives: the limit is above"
    return f"between the two lie {facts.lowest_missed_per_s / facts.highest_met_per_s - 1:.0%}"


def _marked(points: Sequence[RatePoint]) -> list[RatePoint]:
    """With `efficient` filled in."""
    def place(point: RatePoint) -> tuple[float, float] | None:
        cost, late = point.figures.cost_per_good_request_usd, point.figures.ttft_p95_ms
        return None if cost is None or late is None or not point.valid else (cost, late.value)

    places = [place(point) for point in points]
    return [
        point.model_copy(update={"efficient": None if at is None else efficient(at, [p for p in places if p])})
        for point, at in zip(points, places, strict=True)
    ]


def efficient(at: tuple[float, float], others: Iterable[tuple[float, float]]) -> bool:
    """Whether no other point is at least as good in both and better in one; lower is better."""
    return not any(o[0] <= at[0] and o[1] <= at[1] and o != at for o in others)


def interference(
    run: RunInfo, records: Sequence[Record], slos: Mapping[str, Slo | None]
) -> list[Interference]:
    """Each model alone against the same model in the mix; [] for other runs."""
    if run.kind != "interference":
        return []
    mix = next((span for span in run.stages if span.kind == "mix"), None)
    alone = {span.models[0]: span for span in run.stages if span.kind == "alone" and span.models}
    if mix is None:
        return []
    found = []
    for name, span in alone.items():
        own = [record for record in records if record.model == name and not record.warmup]
        pair = [_sample([r for r in own if r.stage == one.name], one, slos) for one in (span, mix)]
        found.append(
            Interference(
                model=name, requests_alone=len(pair[0].measured), requests_mix=len(pair[1].measured),
                contrasts=[contrast for figure in MODEL_FIGURES if (contrast := _contrast(figure, *pair))],
            )
        )  # fmt: skip
    return found


def _sample(records: Sequence[Record], span: StageSpan, slos: Mapping[str, Slo | None]) -> Sample:
    ordered = sorted(records, key=lambda record: record.sent)
    return Sample(ordered, ordered, Window(((span.start_s, span.end_s),), None), slos, None)


def _contrast(figure: Figure, alone: Sample, mix: Sample) -> Contrast | None:
    base, new = figure.estimate(alone), figure.estimate(mix)
    found = compare(
        base, new, figure.change, threshold=0.0, higher_is_worse=figure.higher_is_worse, confidence=CONFIDENCE
    )
    if found is None:
        return None
    change = Estimated(value=found.change.value, low=found.change.low, high=found.change.high)
    return Contrast(
        key=figure.key, title=figure.title, unit=figure.unit, alone=shown(base), mix=shown(new), change=change,
        effect=_effect(change, figure.higher_is_worse),
    )


def _effect(change: Estimated, higher_is_worse: bool) -> Effect:
    if change.low is not None and change.low > _ROUNDING:
        return "worse" if higher_is_worse else "better"
    if change.high is not None and change.high < -_ROUNDING:
        return "better" if higher_is_worse else "worse"
    return "none seen"
