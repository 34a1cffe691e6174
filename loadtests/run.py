"""`python -m loadtests.run SCENARIO.yaml --base-url URL --out DIR`: run a load test and keep its raw records.

Starts Locust headless in a child process of its own session, shows the progress, hands a stop request on and
leaves nothing running. Writes `records.jsonl` and `run.json`; the report is made from them afterwards.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtests import child
from loadtests.context import load_context
from loadtests.endpoint import KEY_VARIABLE, Endpoint
from loadtests.errors import ArgumentError, LoadTestError, StoppedEarlyError, UnreachableError
from loadtests.files import write_atomically
from loadtests.progress import Progress, printer_for
from loadtests.records import read_records
from loadtests.runinfo import RunInfo, run_info
from loadtests.scenario import Overrides, Scenario, load_scenario, with_overrides

INTERRUPTED = StoppedEarlyError.exit_code

#: What an earlier run may have left in DIR and would be taken for this run's.
_STALE = ("records.jsonl", "run.json", "ledger.json", "report.json", "report.html")


@dataclass(frozen=True)
class Plan:
    """Everything one run needs."""

    scenario: Scenario
    scenario_file: Path
    base_url: str
    endpoint: Endpoint
    out: Path
    quiet: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit code: 0 ok, 1 generator failed, 2 bad scenario or
    arguments, 3 nothing answers, 130 interrupted.
    """
    try:
        plan = _plan(_parser().parse_args(argv))
        _look_before(plan)
        info = execute(plan)
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Before the child was started; afterwards the signal is a stop request.
        return INTERRUPTED
    return INTERRUPTED if info.interrupted else 0


def execute(plan: Plan) -> RunInfo:
    """Run the plan and write its files. Raises RunError, or UnreachableError when no request got a
    connection.
    """
    records = plan.out / "records.jsonl"
    job = child.Job(plan.scenario, plan.base_url, records, plan.out / "locust.log")
    with _StopRequests() as stops, child.started(job) as process:
        stops.attach(process)
        show = printer_for(sys.stderr, plan.scenario.duration_s, plan.quiet)
        final = Progress()
        for final in process.progress():
            show.update(final)
        show.close()
        process.check()
    if not records.exists():
        raise StoppedEarlyError("stopped before the first request")
    info = run_info(
        plan.scenario,
        scenario_file=plan.scenario_file.name,
        base_url=plan.base_url,
        final=final,
        records=list(read_records(records)),
        locust_version=version("locust"),
    )
    write_atomically(plan.out / "run.json", info.model_dump_json(indent=2) + "\n")
    if info.requests and info.errors_by_kind.get("connect", 0) == info.requests:
        raise UnreachableError(f"no request got a connection to {plan.base_url}")
    return info


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description=__doc__.splitlines()[0])
    parser.add_argument("scenario", type=Path, help="scenario file (YAML)")
    parser.add_argument("--base-url", required=True, help="endpoint, e.g. http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--context", type=Path, help="prices and objectives of the fleet (JSON), kept for the report"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="seconds instead of the scenario's")
    parser.add_argument(
        "--rate", type=float, metavar="R", help="arrivals per second instead of the scenario's"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed instead of the scenario's")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.epilog = f"The API key is taken from the environment variable {KEY_VARIABLE}."
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    scenario = load_scenario(arguments.scenario)
    try:
        overrides = Overrides(duration_s=arguments.duration, rate_per_s=arguments.rate, seed=arguments.seed)
    except ValueError as error:
        raise ArgumentError("--duration and --rate must be above 0, --seed at least 0") from error
    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in _STALE:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise ArgumentError(f"--out {out}: {error.strerror}") from error
    if arguments.context is not None:
        context = load_context(arguments.context)
        write_atomically(out / "context.json", context.model_dump_json(indent=2) + "\n")
    endpoint = Endpoint.parse(arguments.base_url, os.environ.get(KEY_VARIABLE))
    return Plan(
        scenario=with_overrides(scenario, overrides),
        scenario_file=arguments.scenario,
        base_url=arguments.base_url,
        endpoint=endpoint,
        out=out,
        quiet=arguments.quiet,
    )


def _look_before(plan: Plan) -> None:
    served = plan.endpoint.served_models()
    # Only a warning: an alias, or a model that sleeps, may answer without being listed.
    if served is not None and (missing := sorted(set(plan.scenario.models) - set(served))) and not plan.quiet:
        names = ", ".join(served) or "nothing"
        print(
            f"loadtests: not listed by the endpoint: {', '.join(missing)}; it lists {names}", file=sys.stderr
        )


class _StopRequests:
    """While active, Ctrl-C and SIGTERM stop the child in order, a second one at once.

    Active before the child exists, so that no moment is left in which a signal would leave it behind.
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

    def __enter__(self) -> _StopRequests:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
