"""`python -m loadtests.run SCENARIO.yaml --base-url URL --out DIR`: run a load test and keep its raw records.

Starts Locust in a child process of its own session, shows the progress, hands a stop request on and leaves nothing
running. Writes `records.jsonl` and `run.json`; the report is made from them afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.arrivals import trace_rows
from loadtests.context import load_context
from loadtests.endpoint import KEY_VARIABLE, Endpoint
from loadtests.errors import ArgumentError, InvalidError, LoadTestError, ScenarioError, StoppedEarlyError
from loadtests.execution import Plan, execute
from loadtests.files import write_atomically
from loadtests.pacing import Trace
from loadtests.report.__main__ import main as report
from loadtests.scenario import Overrides, Scenario, json_schema, load_scenario, with_overrides
from loadtests.scraping import Watch
from loadtests.sweeping import slos_of
from loadtests.team import Address
from loadtests.validity import broken_rules

INTERRUPTED = StoppedEarlyError.exit_code

#: What an earlier run may have left in DIR and would be taken for this run's.
_STALE = ("records.jsonl", "run.json", "ledger.json", "fleet.jsonl", *(f"report.{end}" for end in
          ("json", "html", "csv", "md", "xml")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit code: 0 ok, 1 generator failed, 2 bad scenario or
    arguments, 3 the run is invalid, 4 nothing answers, 130 interrupted.
    """
    if "--schema" in (sys.argv[1:] if argv is None else argv):
        print(json.dumps(json_schema(), indent=2))
        return 0
    try:
        plan = _plan(asked := arguments(argv))
        _look_before(plan)
        info = execute(plan)
        if asked.report:
            report(["--quiet", str(plan.out)])
        if info.stopped_by is not None:
            print(f"loadtests: stopped early: {info.stopped_by}", file=sys.stderr)
        elif info.interrupted and not info.lost:
            return INTERRUPTED
        if reasons := broken_rules(info):
            raise InvalidError("the run proves nothing: " + "; ".join(reasons))
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Before the child was started; afterwards the signal is a stop request.
        return INTERRUPTED
    return 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, read. Ends the process for one that is wrong, as argparse does."""
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
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="worker processes (default 1)")
    parser.add_argument(
        "--lead", metavar="HOST:PORT", help="wait here for --workers workers of other machines, which `python -m "
        "loadtests.join` starts, and let them do the work; the port above is used too"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="workers that --lead waits for")
    parser.add_argument(
        "--interference", action="store_true", help="each model alone with its part of the mix, then the mix"
    )
    parser.add_argument(
        "--web", metavar="HOST:PORT", help="Locust's web interface while it runs and afterwards, until Ctrl-C"
    )
    parser.add_argument(
        "--metrics", metavar="URL", help="metrics of the fleet, for example http://127.0.0.1:9464/metrics: replicas, "
        "queues and the bill are then drawn under the latencies"
    )
    parser.add_argument(
        "--engines", metavar="URL", help="list of the engines' metrics (HTTP service discovery), with --metrics"
    )
    parser.add_argument("--report", action="store_true", help="make the report too when the run is over")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of scenario files and exit")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.epilog = f"The API key is taken from the environment variable {KEY_VARIABLE}."
    return parser.parse_args(argv)


def _plan(asked: argparse.Namespace) -> Plan:
    scenario = load_scenario(asked.scenario)
    try:
        overrides = Overrides(duration_s=asked.duration, rate_per_s=asked.rate, seed=asked.seed)
    except ValueError as error:
        raise ArgumentError("--duration and --rate must be above 0, --seed at least 0") from error
    if asked.processes < 1:
        raise ArgumentError("--processes must be at least 1")
    if bool(asked.lead) != (asked.workers > 0) or (asked.lead and asked.processes > 1):
        raise ArgumentError("--lead HOST:PORT and --workers N, at least 1, belong together, and not with --processes")
    if asked.interference and (scenario.sweep is not None or len(scenario.models) < 2):
        raise ArgumentError("--interference needs a scenario of several models that is no sweep")
    if asked.web and (asked.interference or scenario.sweep is not None):
        raise ArgumentError("--web shows one run: neither a sweep nor --interference")
    scenario = with_overrides(scenario, overrides)
    _check_traces(scenario, asked.scenario.parent)
    endpoint = Endpoint.parse(asked.base_url, os.environ.get(KEY_VARIABLE))
    web = _address(asked.web) if asked.web else None
    for name in ("metrics", "engines"):
        if (url := getattr(asked, name)) and not url.startswith(("http://", "https://")):
            raise ArgumentError(f"--{name} {url}: expected http://HOST:PORT/PATH")
    if asked.engines and not asked.metrics:
        raise ArgumentError("--engines is looked at beside --metrics: give that too")
    out: Path = asked.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in _STALE:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise ArgumentError(f"--out {out}: {error.strerror}") from error
    known = {}
    if asked.context is not None:
        context = load_context(asked.context)
        known = {name: model.slo for name, model in context.models.items()}
        if asked.context.resolve() != (out / "context.json").resolve():
            write_atomically(out / "context.json", context.model_dump_json(indent=2) + "\n")
    return Plan(
        scenario=scenario,
        scenario_file=asked.scenario,
        base_url=asked.base_url,
        endpoint=endpoint,
        out=out,
        quiet=asked.quiet,
        processes=asked.workers or asked.processes,
        interference=asked.interference,
        slos=slos_of(scenario, known),
        web=web,
        lead=Address.parse(asked.lead, "--lead") if asked.lead else None,
        watch=Watch(asked.metrics, asked.engines or "") if asked.metrics else None,
    )


def _check_traces(scenario: Scenario, beside: Path) -> None:
    for name, process in scenario.processes.items():
        if isinstance(process, Trace) and not trace_rows(scenario, process, name, beside):
            raise ScenarioError(
                f"{process.path(beside)}: no request in the {scenario.duration_s * process.speed:g} s from "
                f"{process.start_s:g} s on that the run would replay"
            )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ArgumentError(f"--web {text}: expected HOST:PORT, for example 127.0.0.1:8089")
    return host or "127.0.0.1", int(port)


def _look_before(plan: Plan) -> None:
    served = plan.endpoint.served_models()
    # Only a warning: an alias, or a model that sleeps, may answer without being listed.
    if served is not None and (missing := sorted(set(plan.scenario.models) - set(served))) and not plan.quiet:
        names = ", ".join(served) or "nothing"
        print(
            f"loadtests: not listed by the endpoint: {', '.join(missing)}; it lists {names}", file=sys.stderr
        )
    if plan.web and not plan.quiet:
        print(f"loadtests: http://{plan.web[0]}:{plan.web[1]} shows the run; Ctrl-C ends it", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
