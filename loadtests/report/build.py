"""From the files of a run to the report: reads, counts, judges; shows nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from loadtests.fleetseries import FleetSample, read_samples
from loadtests.metrics import quantiles
from loadtests.records import Record, read_records
from loadtests.report import costs, stretches
from loadtests.report.definitions import DEFINITIONS
from loadtests.report.estimates import Sample, shown
from loadtests.report.fleetline import bill, fleet_line
from loadtests.report.groups import group
from loadtests.report.model import (
    Answer,
    Attainment,
    ErrorGroup,
    Estimated,
    LedgerFacts,
    ModelReport,
    Objective,
    Provenance,
    Report,
    RunFacts,
    Totals,
)
from loadtests.report.notes import notes
from loadtests.report.peers import as_others_define
from loadtests.report.timeline import timeline
from loadtests.report.verdict import judge
from loadtests.report.window import Window, window_of
from loadtests.runinfo import RunInfo, load_run_info
from loadtests.scenario import Slo
from loadtests.statistics import CONFIDENCE, share_of


@dataclass(frozen=True)
class Inputs:
    """What a report is made of."""

    run: RunInfo
    records: Sequence[Record]
    context: Context | None
    ledger: Ledger | None
    samples: Sequence[FleetSample] = ()

    def known(self, model: str) -> ModelContext:
        """What the fleet says about a model."""
        return self.context.models.get(model, ModelContext()) if self.context else ModelContext()

    def slo(self, model: str) -> Slo | None:
        """The scenario's objectives, else the fleet's."""
        mine = self.run.scenario.models.get(model)
        return mine.slo if mine and mine.slo else self.known(model).slo

    def slos(self) -> dict[str, Slo | None]:
        """Of every model that was asked for or answered."""
        names = [*self.run.scenario.models, *(record.model for record in self.records)]
        return {name: self.slo(name) for name in dict.fromkeys(names)}


def read(folder: Path) -> Inputs:
    """The files of a run. Raises ReportError or ScenarioError if one is missing or wrong."""
    context, ledger = folder / "context.json", folder / "ledger.json"
    return Inputs(
        run=load_run_info(folder / "run.json"),
        records=list(read_records(folder / "records.jsonl")),
        context=load_context(context) if context.exists() else None,
        ledger=load_ledger(ledger) if ledger.exists() else None,
        samples=read_samples(folder / "fleet.jsonl"),
    )


def build(folder: Path) -> Report:
    """The report of a run's folder. Raises ReportError or ScenarioError if a file is missing or wrong."""
    return report_of(read(folder))


def report_of(inputs: Inputs) -> Report:
    """The report of values that were already read; pure."""
    slos, window = inputs.slos(), window_of(inputs.run)
    by_model: dict[str, list[Record]] = {name: [] for name in slos}
    for record in inputs.records:
        by_model[record.model].append(record)
    samples = {name: model_sample(name, records, inputs, slos, window) for name, records in by_model.items()}
    models = {name: _model(name, sample, inputs) for name, sample in samples.items()}
    totals = _totals(models, inputs, slos, window)
    facts = _facts(inputs.run)
    line = fleet_line(inputs.samples, inputs.run.started_unix)
    return Report(
        confidence=CONFIDENCE,
        verdict=judge(facts, models),
        notes=notes(models, facts, inputs.ledger),
        fleet=inputs.context.fleet if inputs.context else FleetContext(name="unknown"),
        run=facts,
        provenance=_provenance(inputs.context),
        totals=totals,
        models=models,
        errors=_errors(inputs.records),
        timeline=timeline(inputs.records, list(slos), slos),
        fleet_line=line,
        stages=stretches.stages(inputs.run, inputs.records, slos, partial(bill, line)),
        saturation=stretches.saturation(inputs.run, inputs.records, slos, partial(bill, line)),
        interference=stretches.interference(inputs.run, inputs.records, slos),
        ledger=_ledger(inputs.ledger, models),
        definitions=list(DEFINITIONS),
        as_others_define=as_others_define(window.records(inputs.records), slos, window.length_s),
    )


def model_sample(
    name: str, records: Sequence[Record], inputs: Inputs, slos: Mapping[str, Slo | None], window: Window
) -> Sample:
    """One model's requests with what they cost."""
    ledger = inputs.ledger.models.get(name) if inputs.ledger else None
    cost = costs.model_cost(records, ledger)
    return Sample(window.records(records), records, window, slos, cost.cost_usd)


def mix_sample(
    inputs: Inputs, slos: Mapping[str, Slo | None], window: Window, cost_usd: float | None
) -> Sample:
    """All models' requests together."""
    return Sample(window.records(inputs.records), inputs.records, window, slos, cost_usd)


def _model(name: str, sample: Sample, inputs: Inputs) -> ModelReport:
    known = inputs.known(name)
    ledger = inputs.ledger.models.get(name) if inputs.ledger else None
    cost = costs.model_cost(sample.whole, ledger)
    fields = group(sample, cost)
    comparators = costs.comparator_costs(known.comparators, fields["whole_run"], cost)
    streams = [record for record in sample.measured if record.ok and record.inter_chunk_ms]
    return ModelReport(
        **fields,
        source=known.source,
        architecture=known.architecture,
        accelerator=known.accelerator,
        price_usd_per_hour=known.price_usd_per_hour,
        random_weights=known.random_weights,
        slo=sample.slos[name],
        slo_attainment=_attainment(sample, sample.slos[name], inputs.run.scenario.slo_attainment),
        ttft_from_scheduled_ms=quantiles(sample.values("ttft_from_scheduled")),
        longest_gap_ms=quantiles(record.inter_chunk_ms.max for record in streams if record.inter_chunk_ms),
        ttft_cdf=fields["latencies"]["ttft"].cdf,
        ledger_requests=ledger.requests if ledger else None,
        buckets_usd=_buckets(ledger),
        api_cost_usd={item.name: item.cost_usd for item in comparators},
        savings={item.name: item.saving for item in comparators if item.saving is not None},
        comparators=comparators,
        break_even=inputs.ledger.break_even.get(name) if inputs.ledger else None,
    )


def _totals(
    models: Mapping[str, ModelReport], inputs: Inputs, slos: Mapping[str, Slo | None], window: Window
) -> Totals:
    busy = {name: model for name, model in models.items() if model.whole_run.requests}
    cost = costs.mix_cost(list(busy.values()), costs.traffic(inputs.records), inputs.records)
    sample = mix_sample(inputs, slos, window, cost.cost_usd)
    fields = group(sample, cost)
    good = shown(sample.good_share()) if any(slos.values()) else None
    return Totals(
        **fields,
        slo_attainment=good.value if good else None,
        good_share=good,
        comparators=costs.role_costs({name: model.comparators for name, model in busy.items()}, cost),
    )


def _attainment(sample: Sample, slo: Slo | None, goal: float) -> Attainment:
    if slo is None:
        return Attainment(goal=goal, ttft=None, tpot=None, all=None, good=None, objectives=[], answer=None)
    streamed = [record for record in sample.measured if record.stream]
    objectives = [
        _objective("TTFT", slo.ttft_ms, [metrics.meets_ttft(record, slo) for record in streamed], goal),
        _objective("TPOT", slo.tpot_ms, [metrics.meets_tpot(record, slo) for record in streamed], goal),
    ]
    found = {item.term: item for item in objectives if item is not None}
    good = shown(sample.good_share())
    return Attainment(
        goal=goal,
        ttft=found["TTFT"].share.value if "TTFT" in found else None,
        tpot=found["TPOT"].share.value if "TPOT" in found else None,
        all=good.value if good else None,
        good=good,
        objectives=list(found.values()),
        answer=_all([item.answer for item in found.values()]),
    )


def _objective(term, limit_ms: float, flags: Sequence[bool], goal: float) -> Objective | None:
    share = shown(share_of(flags))
    return None if share is None else Objective(term=term, limit_ms=limit_ms, share=share, answer=_answer(share, goal))


def _answer(share: Estimated, goal: float) -> Answer:
    if share.low is not None and share.low >= goal:
        return "met"
    return "missed" if share.high is not None and share.high < goal else "undecided"


def _all(answers: Sequence[Answer]) -> Answer | None:
    if "missed" in answers:
        return "missed"
    return "undecided" if "undecided" in answers else ("met" if answers else None)


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


def _ledger(ledger: Ledger | None, models: Mapping[str, ModelReport]) -> LedgerFacts | None:
    if ledger is None:
        return None
    others = sum(item.nanousd.total for name, item in ledger.models.items() if name not in models)
    return LedgerFacts(residual_usd=costs.usd(ledger.residual_nanousd), other_models_usd=costs.usd(others))


def _provenance(context: Context | None) -> Provenance:
    if context is None:
        return Provenance(versions={}, commit="", machine=None, price_book=None)
    return Provenance(
        versions=context.versions, commit=context.commit, machine=context.machine, price_book=context.price_book
    )


def _facts(run: RunInfo) -> RunFacts:
    same = RunFacts.model_fields.keys() & RunInfo.model_fields.keys() - {"scenario"}
    return RunFacts(
        **{name: getattr(run, name) for name in same},
        scenario=run.scenario.name,
        description=run.scenario.description,
        duration_s=run.scenario.duration_s,
        warmup_s=run.scenario.warmup_s,
    )
