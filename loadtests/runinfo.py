"""run.json: what was run, when, and how truthfully the load generator kept to its schedule."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.errors import ReportError
from loadtests.metrics import quantiles
from loadtests.progress import Progress
from loadtests.records import Record
from loadtests.scenario import Scenario

Quantiles = dict[str, float | int | None]


class Arrivals(BaseModel):
    """The open-loop part. Rates in arrivals per second; a conversation is one arrival.

    nominal: the scenario's rate. requested: the drawn schedule's count / duration. achieved: what was sent /
    max(duration, when the last one left).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheduled: int
    sent: int
    nominal_rate_per_s: float
    requested_rate_per_s: float
    achieved_rate_per_s: float

    @property
    def achieved_share(self) -> float:
        """Achieved / requested rate; 1 for an empty schedule."""
        return self.achieved_rate_per_s / self.requested_rate_per_s if self.requested_rate_per_s else 1.0


class RunInfo(BaseModel):
    """run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def run_info(
    scenario: Scenario,
    *,
    scenario_file: str,
    base_url: str,
    final: Progress,
    records: Sequence[Record],
    locust_version: str,
) -> RunInfo:
    """Put run.json together from the child's last word and the records."""
    lateness = [record.lateness_s * 1e3 for record in records if record.lateness_s is not None]
    span = max(scenario.duration_s, final.last_arrival_sent_s)
    return RunInfo(
        scenario=scenario,
        scenario_file=scenario_file,
        base_url=base_url,
        seed=scenario.seed,
        started_unix=final.started_unix,
        ended_unix=final.started_unix + max(final.last_ended_s, final.elapsed_s),
        interrupted=not final.complete,
        requests=len(records),
        errors_by_kind=dict(Counter(record.error.kind for record in records if record.error)),
        arrivals=Arrivals(
            scheduled=final.scheduled,
            sent=final.arrivals,
            nominal_rate_per_s=scenario.arrivals.rate_per_s,
            requested_rate_per_s=final.scheduled / scenario.duration_s,
            achieved_rate_per_s=final.arrivals / span,
        ),
        dispatch_lateness_ms=quantiles(lateness),
        loop_lag_ms=quantiles([]) | dict(final.loop_lag_ms),
        locust_version=locust_version,
        python_version=platform.python_version(),
    )


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
