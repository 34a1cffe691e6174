"""Lets a plan happen: one pass or several, each a Locust child; writes records.jsonl and run.json.

Whatever ends a run early, what was measured until then stays and is marked: an interrupted run, one that its stop
condition ended, one whose target died.
"""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtests import child, passes
from loadtests.endpoint import Endpoint
from loadtests.errors import StoppedEarlyError, UnreachableError
from loadtests.files import write_atomically
from loadtests.passes import Made, Pass
from loadtests.people import Slo
from loadtests.progress import Progress, printer_for
from loadtests.records import RecordWriter, read_records
from loadtests.runinfo import RunInfo, ScrapeFacts, run_info
from loadtests.scenario import Scenario
from loadtests.scraping import Scraper, Watch, interval_s
from loadtests.sweeping import SweepSearch
from loadtests.team import Address, Presence
from loadtests.validity import broken_rules


@dataclass(frozen=True)
class Plan:
    """Everything one run needs. interference: each model alone first. slos: objectives of models, for a sweep. web:
    where Locust's interface listens, None without one. watch: the fleet's metrics to look at meanwhile. lead: where
    workers of other machines join, `processes` of them."""

    scenario: Scenario
    scenario_file: Path
    base_url: str
    endpoint: Endpoint
    out: Path
    quiet: bool
    processes: int = 1
    interference: bool = False
    slos: dict[str, Slo] | None = None
    web: tuple[str, int] | None = None
    watch: Watch | None = None
    lead: Address | None = None


def execute(plan: Plan) -> RunInfo:
    """Run the plan and write its files. Raises RunError, StoppedEarlyError when nothing was sent, or UnreachableError
    when no request got a connection; run.json is there in the last case too.
    """
    with StopRequests() as stops, Presence(plan.lead) if plan.lead else nullcontext(), _watching(plan) as scraper:
        if plan.scenario.sweep is not None:
            info = _sweep(plan, stops)
        elif plan.interference:
            info = _in_passes(plan, stops)
        else:
            info = _one(plan, Pass("", "", plan.scenario, 0), plan.out, stops)
    if scraper is not None:
        facts = ScrapeFacts(samples=scraper.samples, failed=scraper.failed, last_error=scraper.last_error[:300])
        info = info.model_copy(update={"scrape": facts})
    write_atomically(plan.out / "run.json", info.model_dump_json(indent=2) + "\n")
    if info.requests and info.errors_by_kind.get("connect", 0) == info.requests:
        raise UnreachableError(f"no request got a connection to {plan.base_url}")
    return info


def _watching(plan: Plan) -> AbstractContextManager[Scraper | None]:
    if plan.watch is None:
        return nullcontext()
    sweep = plan.scenario.sweep
    passes_ = sweep.steps if sweep else len(plan.scenario.models) + 1 if plan.interference else 1
    return Scraper(plan.watch, plan.out / "fleet.jsonl", interval_s(plan.scenario.duration_s * passes_))


def _in_passes(plan: Plan, stops: StopRequests) -> RunInfo:
    made: list[Made] = []
    for one in passes.interference(plan.scenario):
        made.append(_made(plan, one, len(made) + 1, stops))
        if made[-1].info.interrupted:
            break
    return _joined(plan, made, passes.joined_info(made, "interference"))


def _sweep(plan: Plan, stops: StopRequests) -> RunInfo:
    search = SweepSearch(plan.scenario, plan.slos or {})
    made: list[Made] = []
    while (step := search.next()) is not None:
        made.append(_made(plan, step, len(made) + 1, stops))
        last = made[-1]
        search.take(step, read_records(last.records), valid=not broken_rules(last.info))
        if last.info.interrupted and last.info.stopped_by is None:
            break
    return _joined(plan, made, passes.joined_info(made, "sweep", search.facts()))


def _joined(plan: Plan, made: list[Made], info: RunInfo) -> RunInfo:
    writer = RecordWriter(plan.out / "records.jsonl")
    for record in passes.joined_records(made):
        writer.write(record)
    writer.close()
    return info


def _made(plan: Plan, one: Pass, number: int, stops: StopRequests) -> Made:
    folder = plan.out / "passes" / f"{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    if not plan.quiet:
        print(one.name, file=sys.stderr)
    info = _one(plan, one, folder, stops)
    write_atomically(folder / "run.json", info.model_dump_json(indent=2) + "\n")
    return Made(one, info, folder / "records.jsonl")


def _one(plan: Plan, one: Pass, folder: Path, stops: StopRequests) -> RunInfo:
    """Run one pass in a child. Its files go to `folder`."""
    records = folder / "records.jsonl"
    job = child.Job(
        one.scenario, plan.base_url, records, folder / "locust.log", beside=plan.scenario_file.parent,
        processes=plan.processes, only=one.only, salt=one.salt, web=plan.web, lead=plan.lead,
    )
    final = Progress()
    with child.started(job) as process:
        stops.attach(process)
        show = printer_for(sys.stderr, one.scenario.duration_s, plan.quiet)
        for final in process.progress():
            show.update(final)
        show.close()
        process.check()
    if not records.exists():
        raise StoppedEarlyError("stopped before the first request")
    return run_info(
        one.scenario,
        scenario_file=plan.scenario_file.name,
        base_url=plan.base_url,
        final=final,
        records=read_records(records),
        locust_version=version("locust"),
        models=(one.only,) if one.only else (),
    )



class StopRequests:
    """While active, Ctrl-C and SIGTERM stop the child in order, a second one at once.

    Active before the first child exists, so that no moment is left in which a signal would leave it behind.
    """

    def __init__(self) -> None:
        self._process: child.Process | None = None
        self._asked = False
        self._before: dict[int, Any] = {}

    def attach(self, process: child.Process) -> None:
        """From now on requests go to this process, one that came earlier included."""
        self._process = process
        if self._asked:
            process.stop()

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self._process is not None:
            self._process.stop()

    def __enter__(self) -> StopRequests:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
