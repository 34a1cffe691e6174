"""The Locust side: one user class that lets the whole schedule of a scenario happen.

Started by `python -m loadtests.run`. Locust owns the process, its signals and its own statistics; the
arrivals, the clock and the records are ours, because Locust's percentiles are rounded and its pacing is
closed loop. Progress and the final state go as JSON lines to the file descriptor that the parent opened; when
the parent is gone, so is the run.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import gevent
from locust import User, events, task
from locust.env import Environment
from locust.exception import LocustError

from loadtests.arrivals import schedule
from loadtests.client import ChatClient, Observation
from loadtests.endpoint import KEY_VARIABLE, Endpoint
from loadtests.looplag import LagProbe
from loadtests.metrics import quantiles
from loadtests.records import Record, RecordWriter
from loadtests.scenario import load_scenario
from loadtests.users import Counts, Dispatcher, RunClock

_LOG = logging.getLogger(__name__)
_PROGRESS_EVERY_S = 0.5


class RequestFailed(LocustError):
    """How a failed request shows in Locust's own statistics."""


@events.init_command_line_parser.add_listener
def _add_arguments(parser) -> None:
    parser.add_argument("--scenario", required=True, help="scenario file")
    parser.add_argument("--records", required=True, help="file for the raw records (JSON lines)")
    parser.add_argument("--progress-fd", type=int, required=True, help="open file descriptor for progress")


class MixUser(User):
    """The only user Locust knows; everybody of the scenario lives inside its run."""

    fixed_count = 1

    @task
    def run_mix(self) -> None:
        try:
            run = Run(self.environment)
            # The parent learns about the end from the last progress line, whatever ends the run.
            self.environment.events.quitting.add_listener(lambda **_: run.finish())
            run.go()
        except Exception:
            # Locust would log it and start the task again, for ever.
            _LOG.exception("the run failed")
            self.environment.process_exit_code = 1
        # quit() kills this very greenlet, so it has to be called from another one.
        gevent.spawn(self.environment.runner.quit)
        gevent.sleep(60)


class Run:
    """One run in this process: schedule, dispatcher, records and progress, put together."""

    def __init__(self, environment: Environment) -> None:
        options = environment.parsed_options
        self._environment = environment
        self._progress_fd = options.progress_fd
        scenario = load_scenario(Path(options.scenario))
        self._arrivals = schedule(scenario)
        self._writer = RecordWriter(Path(options.records))
        endpoint = Endpoint.parse(environment.host, os.environ.get(KEY_VARIABLE))
        self._clock = RunClock()
        self._client = ChatClient(endpoint, scenario.request_timeout_s, self._clock.now)
        self._dispatcher = Dispatcher(scenario, self._client, self._clock, self._on_record)
        self._lag = LagProbe()
        self._complete = False
        self._failed = False
        self._finished = False

    def go(self) -> None:
        """Let the schedule happen; returns when the last answer is complete."""
        background = [gevent.spawn(self._report_progress), gevent.spawn(self._lag.run)]
        try:
            self._dispatcher.run(self._arrivals)
            self._complete = True
        except Exception:
            self._failed = True
            raise
        finally:
            gevent.killall(background)

    def finish(self) -> None:
        """End what is in flight and say the last word, unless the run failed; safe to call twice."""
        if self._finished:
            return
        self._finished = True
        self._dispatcher.stop()
        self._client.close()
        self._writer.close()
        if not self._failed:
            self._say(final=True)

    def _on_record(self, record: Record, seen: Observation) -> None:
        self._writer.write(record)
        end = record.last_content if record.last_content is not None else record.ended
        error = record.error
        self._environment.events.request.fire(
            request_type="POST",
            name=f"{record.model} {record.user_kind}",
            response_time=(end - record.sent) * 1e3,
            response_length=seen.body_bytes,
            exception=RequestFailed(f"{error.kind}: {error.detail}") if error else None,
            context={},
        )

    def _report_progress(self) -> None:
        while True:
            try:
                self._say(final=False)
            except BrokenPipeError:
                # The parent died without a word; a load generator nobody controls must not go on.
                gevent.spawn(self._environment.runner.quit)
                return
            gevent.sleep(_PROGRESS_EVERY_S)

    def _say(self, final: bool) -> None:
        counts: Counts = self._dispatcher.counts
        state = {
            "final": final,
            "complete": self._complete,
            "elapsed_s": self._clock.now(),
            "started_unix": self._clock.started_unix,
            "scheduled": len(self._arrivals),
            "arrivals": counts.arrivals,
            "sent": counts.sent,
            "done": counts.done,
            "errors": counts.errors,
            "last_ended_s": counts.last_ended,
            "last_arrival_sent_s": counts.last_arrival_sent,
            "loop_lag_ms": quantiles(self._lag.lags_ms),
        }
        os.write(self._progress_fd, json.dumps(state).encode() + b"\n")
