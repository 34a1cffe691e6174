"""From the files of a run to the report: reads, counts, judges; shows nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests import metrics
from loadtests.context import (
    Context,
    FleetContext,
    Ledger,
    ModelContext,
    ModelLedger,
    load_context,
    load_ledger,
)
from loadtests.metrics import quantiles
from loadtests.records import Record, read_records
from loadtests.report import costs
from loadtests.report.definitions import DEFINITIONS
from loadtests.report.model import (
    Attainment,
    ErrorGroup,
    LedgerFacts,
    ModelReport,
    Report,
    RunFacts,
    Timeline,
    Totals,
)
from loadtests.report.notes import notes
from loadtests.report.verdict import judge
from loadtests.runinfo import RunInfo, load_run_info
from loadtests.scenario import Slo

_CDF_POINTS = 200


@dataclass(frozen=True)
class Inputs:
    """What a report is made of."""

    run: RunInfo
    records: Sequence[Record]
    context: Context | None
    ledger: Ledger | None


def build(folder: Path) -> Report:
    """The report of a run's folder. Raises ReportError or ScenarioError if a file is missing or wrong."""
    context, ledger = folder / "context.json", folder / "ledger.json"
    return report_of(
        Inputs(
            run=load_run_info(folder / "run.json"),
            records=list(read_records(folder / "records.jsonl")),
            context=load_context(context) if context.exists() else None,
            ledger=load_ledger(ledger) if ledger.exists() else None,
        )
    )


def report_of(inputs: Inputs) -> Report:
    """The report of values that were already read; pure."""
    by_model: dict[str, list[Record]] = {name: [] for name in inputs.run.scenario.models}
    for record in inputs.records:
        by_model.setdefault(record.model, []).append(record)
    models = {name: _model(name, records, inputs) for name, records in by_model.items()}
    facts = _facts(inputs.run)
    return Report(
        verdict=judge(facts, models),
        notes=notes(models, facts, inputs.ledger),
        fleet=inputs.context.fleet if inputs.context else FleetContext(name="unknown"),
        run=facts,
        totals=_totals(models, inputs),
        models=models,
        errors=_errors(inputs.records),
        timeline=_timeline(inputs.records),
        ledger=_ledger(inputs.ledger, models),
        definitions=list(DEFINITIONS),
    )


def _model(name: str, records: Sequence[Record], inputs: Inputs) -> ModelReport:
    known = inputs.context.models.get(name, ModelContext()) if inputs.context else ModelContext()
    ledger = inputs.ledger.models.get(name) if inputs.ledger else None
    slo = _slo_of(name, inputs, known)
    measured = _measured(records)
    whole = costs.traffic(records)
    cost = costs.model_cost(records, ledger)
    comparators = costs.comparator_costs(known.comparators, whole, cost)
    window = _window(inputs.run)
    start, end = window
    return ModelReport(
        **dict(costs.traffic(measured)),
        **dict(cost),
        source=known.source,
        architecture=known.architecture,
        accelerator=known.accelerator,
        price_usd_per_hour=known.price_usd_per_hour,
        random_weights=known.random_weights,
        requests_per_s=len(measured) / (end - start),
        output_tokens_per_s=metrics.output_tokens_within(records, start, end) / (end - start),
        goodput_per_s=sum(metrics.is_good(record, slo) for record in measured) / (end - start),
        slo=slo,
        slo_attainment=_attainment(measured, slo, inputs.run.scenario.slo_attainment),
        **_latencies(measured),
        ttft_from_scheduled_ms=_quantiles_of(metrics.ttft_from_scheduled_ms, measured),
        longest_gap_ms=quantiles(r.inter_chunk_ms.max for r in measured if r.ok and r.inter_chunk_ms),
        ttft_cdf=_cdf(_values(metrics.ttft_ms, measured)),
        whole_run=whole,
        ledger_requests=ledger.requests if ledger else None,
        buckets_usd=_buckets(ledger),
        api_cost_usd={item.name: item.cost_usd for item in comparators},
        savings={item.name: item.saving for item in comparators if item.saving is not None},
        comparators=comparators,
    )


def _totals(models: dict[str, ModelReport], inputs: Inputs) -> Totals:
    measured = _measured(inputs.records)
    whole = costs.traffic(inputs.records)
    busy = {name: model for name, model in models.items() if model.whole_run.requests}
    cost = costs.mix_cost(list(busy.values()), whole, inputs.records)
    start, end = _window(inputs.run)
    slos = {name: model.slo for name, model in models.items()}
    good = [metrics.is_good(record, slos[record.model]) for record in measured]
    return Totals(
        **dict(costs.traffic(measured)),
        **dict(cost),
        requests_per_s=len(measured) / (end - start),
        output_tokens_per_s=sum(model.output_tokens_per_s for model in models.values()),
        goodput_per_s=sum(good) / (end - start),
        slo_attainment=metrics.share(good) if any(slos.values()) else None,
        **_latencies(measured),
        whole_run=whole,
        comparators=costs.role_costs({name: model.comparators for name, model in busy.items()}, cost),
    )


def _slo_of(name: str, inputs: Inputs, known: ModelContext) -> Slo | None:
    mine = inputs.run.scenario.models.get(name)
    return mine.slo if mine and mine.slo else known.slo


def _attainment(measured: Sequence[Record], slo: Slo | None, goal: float) -> Attainment:
    if slo is None:
        return Attainment(goal=goal, ttft=None, tpot=None, all=None)
    streamed = [record for record in measured if record.stream]
    return Attainment(
        goal=goal,
        ttft=metrics.share([metrics.meets_ttft(record, slo) for record in streamed]),
        tpot=metrics.share([metrics.meets_tpot(record, slo) for record in streamed]),
        all=metrics.share([metrics.is_good(record, slo) for record in measured]),
    )


def _latencies(measured: Sequence[Record]) -> dict[str, dict[str, float | int | None]]:
    return {
        "ttft_ms": _quantiles_of(metrics.ttft_ms, measured),
        "tpot_ms": _quantiles_of(metrics.tpot_ms, measured),
        "e2e_ms": _quantiles_of(metrics.e2e_ms, measured),
    }


def _values(metric, records: Iterable[Record]) -> list[float]:
    # A broken answer's latencies are no latencies; it counts as an error and a missed objective.
    return [value for record in records if record.ok and (value := metric(record)) is not None]


def _quantiles_of(metric, records: Iterable[Record]) -> dict[str, float | int | None]:
    return quantiles(_values(metric, records))


def _cdf(values: Sequence[float]) -> list[tuple[float, float]]:
    if not values:
        return []
    ordered = np.sort(values)
    picks = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _CDF_POINTS)).round().astype(int))
    return [(float(ordered[i]), (int(i) + 1) / len(ordered)) for i in picks]


def _measured(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if not record.warmup]


def _window(run: RunInfo) -> tuple[float, float]:
    """The measured window in run seconds; an interrupted run ends it early."""
    end = run.scenario.duration_s
    if run.interrupted:
        end = min(end, run.ended_unix - run.started_unix)
    start = min(run.scenario.warmup_s, end)
    # A run stopped within its warm-up measured nothing; any length avoids a division by zero.
    return start, end if end > start else start + 1.0


def _buckets(ledger: ModelLedger | None) -> dict[str, float] | None:
    if ledger is None:
        return None
    return {name: costs.usd(amount) for name, amount in ledger.nanousd.model_dump().items()}


def _errors(records: Iterable[Record]) -> list[ErrorGroup]:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.error:
            groups[record.model, record.error.kind].append(record)
    return [
        ErrorGroup(
            model=model,
            kind=kind,
            count=len(group),
            in_warmup=sum(record.warmup for record in group),
            example=group[0].error.detail if group[0].error else "",
        )
        for (model, kind), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _timeline(records: Sequence[Record]) -> Timeline:
    seconds = math.ceil(max((record.ended for record in records), default=0.0)) or 1
    sent, completed, errors = [0] * seconds, [0] * seconds, [0] * seconds
    ttfts: list[list[float]] = [[] for _ in range(seconds)]
    for record in records:
        started, ended = int(record.sent), min(int(record.ended), seconds - 1)
        sent[started] += 1
        (completed if record.ok else errors)[ended] += 1
        value = metrics.ttft_ms(record) if record.ok else None
        if value is not None:
            ttfts[started].append(value)
    medians = [float(np.median(values)) if values else None for values in ttfts]
    return Timeline(sent=sent, completed=completed, errors=errors, ttft_p50_ms=medians)


def _ledger(ledger: Ledger | None, models: dict[str, ModelReport]) -> LedgerFacts | None:
    if ledger is None:
        return None
    others = sum(item.nanousd.total for name, item in ledger.models.items() if name not in models)
    return LedgerFacts(residual_usd=costs.usd(ledger.residual_nanousd), other_models_usd=costs.usd(others))


def _facts(run: RunInfo) -> RunFacts:
    same = RunFacts.model_fields.keys() & RunInfo.model_fields.keys() - {"scenario"}
    return RunFacts(
        **{name: getattr(run, name) for name in same},
        scenario=run.scenario.name,
        description=run.scenario.description,
        duration_s=run.scenario.duration_s,
        warmup_s=run.scenario.warmup_s,
    )
