"""run.json: what was run, when, and how truthfully the load generator kept to its schedule."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.errors import ReportError, ScenarioError
from loadtests.metrics import quantiles
from loadtests.pacing import Closed
from loadtests.progress import Progress
from loadtests.records import Record
from loadtests.scenario import Scenario, nominal_rate

Quantiles = dict[str, float | int | None]
RunKind = Literal["mix", "sweep", "interference"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arrivals(_Part):
    """The open-loop part. Rates in arrivals per second; a conversation is one arrival.

    nominal: the scenario's mean rate. requested: the drawn schedule's count / duration. achieved: what was
    sent / max(duration, when the last one left). A closed loop has no rate that was asked for: nominal and
    requested are then what was achieved.
    """

    scheduled: int
    sent: int
    nominal_rate_per_s: float
    requested_rate_per_s: float
    achieved_rate_per_s: float

    @property
    def achieved_share(self) -> float:
        """Achieved / requested rate; 1 for an empty schedule."""
        return self.achieved_rate_per_s / self.requested_rate_per_s if self.requested_rate_per_s else 1.0


class StageSpan(_Part):
    """A stretch of the run, in run seconds; records name it in `stage`.

    kind: that of the scenario's stage; in a run of several passes `step` (of a sweep), `alone` or `mix` (of an
    interference run). measured: whether its requests count; warm-ups do not. rate_per_s: mean arrivals per
    second that were asked for, None in a closed loop. models: who was loaded, empty for all.
    """

    name: str
    kind: str
    start_s: float
    end_s: float
    measured: bool
    rate_per_s: float | None = None
    models: tuple[str, ...] = ()


class WorkerFacts(_Part):
    """One worker process. cpu_share: of one core, its busiest second. clock_offset_ms: its clock minus the
    master's, with half the round trip as the error; 0 for the master itself. memory_mib: resident at the end;
    memory_early_mib: after 30 s."""

    index: int
    host: str
    requests: int
    chunks: int
    cpu_share: float
    chunks_per_s: float
    clock_offset_ms: float = 0.0
    clock_error_ms: float = 0.0
    memory_early_mib: float = 0.0
    memory_mib: float = 0.0


class SweepStep(_Part):
    """One rate that was tried."""

    stage: str
    rate_per_s: float
    requests: int
    attained: float | None
    met: bool
    valid: bool


class SweepFacts(_Part):
    """The search for the highest rate that meets the objectives. goal: the share that had to meet them.

    highest_met_per_s: None if no rate met them. lowest_missed_per_s: None if every rate did.
    """

    method: str
    goal: float
    steps: tuple[SweepStep, ...]
    highest_met_per_s: float | None
    lowest_missed_per_s: float | None


class ScrapeFacts(_Part):
    """How the fleet's metrics were looked at during the run: samples taken, those that failed and the last reason."""

    samples: int
    failed: int
    last_error: str = ""


class RunInfo(_Part):
    """run.json. stopped_by: the stop condition that ended the run early, in words. lost: what is missing of the
    run (a worker that died), in words; empty in a whole run."""

    format: int = 1
    scenario: Scenario
    scenario_file: str
    base_url: str
    seed: int
    started_unix: float
    ended_unix: float
    interrupted: bool
    requests: int
    errors_by_kind: dict[str, int]
    arrivals: Arrivals
    dispatch_lateness_ms: Quantiles
    loop_lag_ms: Quantiles
    locust_version: str
    python_version: str
    kind: RunKind = "mix"
    loop: Literal["open", "closed", "mixed"] = "open"
    stopped_by: str | None = None
    lost: tuple[str, ...] = ()
    stages: tuple[StageSpan, ...] = ()
    workers: tuple[WorkerFacts, ...] = ()
    sweep: SweepFacts | None = None
    scrape: ScrapeFacts | None = None


def run_info(
    scenario: Scenario,
    *,
    scenario_file: str,
    base_url: str,
    final: Progress,
    records: Iterable[Record],
    locust_version: str,
    name: str = "",
    models: Sequence[str] = (),
) -> RunInfo:
    """Put one pass's run.json together from the child's last word and the records, which are read once.

    name: of the pass, if it is one of several; its stages then carry it. models: who was loaded, empty for all.
    """
    lateness, errors, count, span = [], Counter[str](), 0, 0.0
    for record in records:
        count += 1
        if record.error:
            errors[record.error.kind] += 1
        if record.lateness_s is not None:
            lateness.append(record.lateness_s * 1e3)
    span = max(scenario.duration_s, final.last_arrival_sent_s)
    loop = loop_of(scenario)
    achieved = final.arrivals / span
    # A closed loop asks for no rate, so it cannot fall short of one.
    requested = final.scheduled / scenario.duration_s if loop != "closed" else achieved
    return RunInfo(
        scenario=scenario,
        scenario_file=scenario_file,
        base_url=base_url,
        seed=scenario.seed,
        started_unix=final.started_unix,
        ended_unix=final.started_unix + max(final.last_ended_s, final.elapsed_s),
        interrupted=not final.complete,
        requests=count,
        errors_by_kind=dict(errors),
        arrivals=Arrivals(
            scheduled=final.scheduled,
            sent=final.arrivals,
            nominal_rate_per_s=_nominal(scenario, requested),
            requested_rate_per_s=requested,
            achieved_rate_per_s=achieved,
        ),
        dispatch_lateness_ms=quantiles(lateness),
        loop_lag_ms=quantiles([]) | dict(final.loop_lag_ms),
        locust_version=locust_version,
        python_version=platform.python_version(),
        loop=loop,
        stopped_by=final.stopped_by,
        lost=final.lost,
        stages=stages_of(scenario, requested if loop != "closed" else None, models),
        workers=tuple(WorkerFacts.model_validate(worker) for worker in final.workers),
    )


def stages_of(scenario: Scenario, rate_per_s: float | None, models: Sequence[str]) -> tuple[StageSpan, ...]:
    """The scenario's stages as records name them; a stage's rate is the mean one times its factor."""
    mean = sum((s.left + s.right) / 2 * (s.end_s - s.start_s) for s in scenario.course) / scenario.duration_s
    return tuple(
        StageSpan(
            name=span.name,
            kind=span.kind,
            start_s=span.start_s,
            end_s=span.end_s,
            measured=span.measured,
            rate_per_s=None if rate_per_s is None else rate_per_s * (span.left + span.right) / 2 / mean,
            models=tuple(models),
        )
        for span in scenario.course
    )


def loop_of(scenario: Scenario) -> Literal["open", "closed", "mixed"]:
    """Whether arrivals wait for answers."""
    closed = [isinstance(process, Closed) for process in scenario.processes.values()]
    return "closed" if all(closed) else "mixed" if any(closed) else "open"


def load_run_info(path: Path) -> RunInfo:
    """Read run.json. Raises ReportError."""
    try:
        return RunInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"{path}: {where}: {first['msg']}") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}") from error


def _nominal(scenario: Scenario, requested: float) -> float:
    try:
        return nominal_rate(scenario)
    except ScenarioError:
        # A trace or a closed loop has no rate but the one that came.
        return requested
