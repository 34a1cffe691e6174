"""Runs made of several passes, one after the other: a sweep's steps, or each model alone and then the mix.

Every pass is a run of its own with prompts of its own. Their records become one file on one clock, with the pass as the
stage, so that whatever reads a plain run reads these as well. No process and no socket in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.metrics import quantiles
from loadtests.records import Record, read_records
from loadtests.runinfo import Arrivals, Quantiles, RunInfo, RunKind, StageSpan, SweepFacts, WorkerFacts
from loadtests.scenario import Scenario
from loadtests.validity import broken_rules


@dataclass(frozen=True)
class Pass:
    """One run of several. name: unique, becomes the stage. kind: `step`, `alone` or `mix`. only: the one model that is
    loaded. salt: passes with different ones say different words of the same lengths."""

    name: str
    kind: str
    scenario: Scenario
    salt: int
    only: str | None = None
    rate_per_s: float | None = None


@dataclass(frozen=True)
class Made:
    """A pass that was run."""

    of: Pass
    info: RunInfo
    records: Path


def interference(scenario: Scenario) -> tuple[Pass, ...]:
    """Each model alone with exactly its part of the mix's schedule, then the mix."""
    alone = [
        Pass(f"{name} alone", "alone", scenario, number, name) for number, name in enumerate(scenario.models, start=1)
    ]
    return (*alone, Pass("mix", "mix", scenario, 0))


def joined_records(made: Sequence[Made]) -> Iterator[Record]:
    """The records of all passes on the first one's clock, arrivals numbered apart, the pass as their stage."""
    begin, offset = made[0].info.started_unix, 0
    for one in made:
        shift, highest = one.info.started_unix - begin, -1
        for record in read_records(one.records):
            highest = max(highest, record.arrival)
            yield record.model_copy(
                update={
                    "arrival": record.arrival + offset,
                    "stage": one.of.name,
                    **{name: _shifted(getattr(record, name), shift) for name in _TIMES},
                }
            )
        offset += highest + 1


def joined_info(made: Sequence[Made], kind: RunKind, sweep: SweepFacts | None = None) -> RunInfo:
    """One run.json for all passes. Its scenario lasts as long as they did together and has no stages of its own."""
    first, last = made[0].info, made[-1].info
    trusted = _trusted([one.info for one in made], kind)
    length = last.ended_unix - first.started_unix
    whole = first.model_copy(
        update={
            "kind": kind,
            "scenario": made[-1].of.scenario.model_copy(update={"stages": (), "duration_s": length, "warmup_s": 0.0}),
            "seed": first.seed,
            "ended_unix": last.ended_unix,
            "interrupted": any(one.info.interrupted and not (kind == "sweep" and one.info.stopped_by) for one in made),
            "requests": sum(one.info.requests for one in made),
            "errors_by_kind": _summed(one.info.errors_by_kind for one in made),
            "arrivals": _arrivals(trusted),
            "dispatch_lateness_ms": _worst([info.dispatch_lateness_ms for info in trusted]),
            "loop_lag_ms": _worst([info.loop_lag_ms for info in trusted]),
            # A stop condition ends one step of a sweep, as a rate that was not met; the search goes on.
            "stopped_by": None if kind == "sweep" else _first_reason(made),
            "lost": tuple(text for one in made for text in one.info.lost),
            "stages": tuple(_stage(one, first.started_unix) for one in made),
            "workers": _workers([one.info for one in made]),
            "sweep": sweep,
        }
    )
    # What was copied is not validated; what is written must be readable.
    return RunInfo.model_validate(whole.model_dump())


_TIMES = (
    "scheduled", "sent", "first_content", "last_content", "ended", "first_answer", "first_event", "last_event"
)


def _shifted(value: float | None, by: float) -> float | None:
    return None if value is None else value + by


def _stage(one: Made, begin: float) -> StageSpan:
    """The measured part of a pass."""
    shift, scenario = one.info.started_unix - begin, one.of.scenario
    measured = [span for span in scenario.course if span.measured]
    models = (one.of.only,) if one.of.only else ()
    return StageSpan(
        name=one.of.name, kind=one.of.kind, start_s=shift + measured[0].start_s, end_s=shift + measured[-1].end_s,
        measured=True, rate_per_s=one.of.rate_per_s or one.info.arrivals.requested_rate_per_s, models=models,
    )


def _first_reason(made: Sequence[Made]) -> str | None:
    """The stop condition that ended a pass, the first one's."""
    return next((one.info.stopped_by for one in made if one.info.stopped_by), None)


def _trusted(infos: Sequence[RunInfo], kind: RunKind) -> Sequence[RunInfo]:
    """The passes that a run's validity is judged by. A sweep that went on until the generator itself could not follow
    has found what it says about the rates before; of an interference run every pass has to be valid."""
    good = [info for info in infos if not broken_rules(info)]
    return good if kind == "sweep" and good else infos


def _arrivals(infos: Sequence[RunInfo]) -> Arrivals:
    # The worst pass decides whether the schedule was kept: one that was not is not mended by others.
    worst = min(infos, key=lambda info: info.arrivals.achieved_share).arrivals
    return worst.model_copy(
        update={
            "scheduled": sum(info.arrivals.scheduled for info in infos),
            "sent": sum(info.arrivals.sent for info in infos),
        }
    )


def _worst(values: Sequence[Quantiles]) -> Quantiles:
    """The pass with the highest p99; every pass has to keep the limit."""
    known = [value for value in values if value["p99"] is not None]
    return max(known, key=lambda value: value["p99"] or 0.0) if known else quantiles([])


def _workers(infos: Sequence[RunInfo]) -> tuple[WorkerFacts, ...]:
    found: dict[int, WorkerFacts] = {}
    for worker in (worker for info in infos for worker in info.workers):
        known = found.get(worker.index)
        found[worker.index] = worker if known is None else WorkerFacts(
            index=worker.index, host=worker.host, requests=known.requests + worker.requests,
            chunks=known.chunks + worker.chunks, cpu_share=max(known.cpu_share, worker.cpu_share),
            chunks_per_s=max(known.chunks_per_s, worker.chunks_per_s),
            clock_offset_ms=max(known.clock_offset_ms, worker.clock_offset_ms, key=abs),
            clock_error_ms=max(known.clock_error_ms, worker.clock_error_ms),
            memory_early_mib=known.memory_early_mib, memory_mib=max(known.memory_mib, worker.memory_mib),
        )
    return tuple(found[index] for index in sorted(found))


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            whole[name] = whole.get(name, 0) + count
    return whole
