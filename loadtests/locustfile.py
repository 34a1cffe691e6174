"""The Locust side: its processes, messages, statistics and web interface around our leader and workers.

Started by `python -m loadtests.run`. Locust owns the processes, their signals and its own statistics; the arrivals, the
clock and the records are ours, because Locust's percentiles are rounded and its pacing is closed loop. Its users do
nothing: everybody of the scenario lives in the worker. Progress and the final state go as JSON lines to the file
descriptor that the parent opened; when the parent is gone, so is the run.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, task
from locust.env import Environment
from locust.exception import LocustError
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.leader import Leader, Orders
from loadtests.liveview import LiveView
from loadtests.observation import Observation
from loadtests.records import Record
from loadtests.scenario import load_scenario
from loadtests.worker import Worker, pong

_LOG = logging.getLogger(__name__)
_LOCAL = "local"
_PR_SET_PDEATHSIG = 1


class RequestFailed(LocustError):
    """How a failed request shows in Locust's own statistics."""


@events.init_command_line_parser.add_listener
def _add_arguments(parser) -> None:
    hidden = {"include_in_web_ui": False}
    parser.add_argument("--scenario", help="scenario file", **hidden)
    parser.add_argument("--beside", default=".", help="folder where the scenario's traces are", **hidden)
    parser.add_argument("--records", help="file for the raw records (JSON lines)", **hidden)
    parser.add_argument("--progress-fd", type=int, default=-1, help="open file descriptor for progress", **hidden)
    parser.add_argument("--salt", type=int, default=0, help="another one makes other texts", **hidden)
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent does", **hidden)
    parser.add_argument("--only", default="", help="load this model alone", **hidden)


@events.init.add_listener
def _wire(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        _Follower(environment)
        if environment.parsed_options.processes or environment.parsed_options.die_with_parent:
            # A worker whose master was killed would go on for a minute.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    elif isinstance(runner, MasterRunner):
        _Lead(environment)
    else:
        _Follower(environment)
        _Lead(environment)


class Idle(User):
    """Locust wants a user; this one stands there."""

    @task
    def stand(self) -> None:
        gevent.sleep(3600)


class _Follower:
    """Messages to a worker become calls, and its batches messages."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._worker: Worker | None = None
        runner = environment.runner
        # Each is done in a greenlet of its own, because Locust without workers calls listeners where they are sent.
        runner.register_message("flotilla_orders", self._on_orders)
        runner.register_message("flotilla_go", self._on_go)
        runner.register_message("flotilla_stop", self._on_stop)
        runner.register_message("flotilla_ping", self._on_ping)
        environment.events.quitting.add_listener(self._stop)

    def _on_orders(self, msg, **_: Any) -> None:
        gevent.spawn(self._prepare, msg.data)

    def _prepare(self, orders: dict[str, Any]) -> None:
        try:
            self._worker = Worker(orders, self._send_batch, self._tell_locust)
        except Exception as error:
            # Whatever it is, the leader must not wait for this worker.
            self._post("flotilla_ready", {"failure": f"{type(error).__name__}: {error}"})
            raise
        self._post("flotilla_ready", {"scheduled": self._worker.scheduled})

    def _on_go(self, msg, **_: Any) -> None:
        if self._worker is not None:
            gevent.spawn(self._worker.go, msg.data["at_unix"], msg.data["offset_s"])

    def _on_stop(self, **_: Any) -> None:
        gevent.spawn(self._stop)

    def _stop(self, **_: Any) -> None:
        if self._worker is not None:
            self._worker.stop()

    def _on_ping(self, msg, **_: Any) -> None:
        self._post("flotilla_pong", pong(msg.data))

    def _send_batch(self, batch: dict[str, Any]) -> None:
        self._post("flotilla_batch", batch)

    def _post(self, kind: str, data: dict[str, Any]) -> None:
        self._environment.runner.send_message(kind, data)

    def _tell_locust(self, record: Record, seen: Observation) -> None:
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


class _Lead:
    """Locust's start and stop become runs of a leader; messages of workers reach the one that is running."""

    def __init__(self, environment: Environment) -> None:
        self._environment, options = environment, environment.parsed_options
        self._leader: Leader | None = None
        self._headless = bool(options.headless)
        self._progress_fd = options.progress_fd
        self._orders = Orders(
            load_scenario(Path(options.scenario)), environment.host, Path(options.beside), Path(options.records),
            options.salt, options.only or None,
        )
        self._view = LiveView({name: model.slo for name, model in self._orders.scenario.models.items()})
        if environment.web_ui:
            self._view.install(environment)
        runner = environment.runner
        runner.register_message("flotilla_ready", self._forward("on_ready"))
        runner.register_message("flotilla_pong", self._forward("on_pong"))
        runner.register_message("flotilla_batch", self._forward("on_batch"))
        environment.events.spawning_complete.add_listener(self._on_started)
        environment.events.test_stop.add_listener(self._on_stopped)
        # The parent learns about the end from the last progress line, whatever ends the run.
        environment.events.quitting.add_listener(self._on_stopped)

    def _on_started(self, **_: Any) -> None:
        try:
            self._start()
        except Exception:
            # Locust would log it and stand there for ever.
            _LOG.exception("the run could not start")
            self._environment.process_exit_code = 1
            gevent.spawn(self._environment.runner.quit)

    def _start(self) -> None:
        # Locust says so again when somebody changes the number of users in its interface.
        if self._leader is None or self._leader.over:
            runner = self._environment.runner
            clients = runner.clients if isinstance(runner, MasterRunner) else {_LOCAL: None}
            workers = [name for name, node in clients.items() if node is None or node.state != STATE_MISSING]
            self._view.clear()
            self._leader = Leader(
                self._orders, workers, self._post, self._say, self._is_missing, self._view.take if
                self._environment.web_ui else lambda lines: None,
            )
            gevent.spawn(self._run, self._leader)

    def _run(self, leader: Leader) -> None:
        try:
            leader.run()
        except Exception:
            _LOG.exception("the run failed")
            self._environment.process_exit_code = 1
        # Somebody who watches the interface wants to look at what has been; without it the process is done.
        (self._environment.runner.quit if self._headless else self._environment.runner.stop)()

    def _on_stopped(self, **_: Any) -> None:
        if self._leader is not None and not self._leader.over:
            self._leader.abort()

    def _forward(self, name: str) -> Callable[..., None]:
        def listener(msg, **_: Any) -> None:
            if self._leader is not None:
                getattr(self._leader, name)(self._sender(msg), msg.data)

        return listener

    def _sender(self, msg) -> str:
        return msg.node_id if isinstance(self._environment.runner, MasterRunner) else _LOCAL

    def _post(self, kind: str, data: dict[str, Any], worker: str) -> None:
        distributed = isinstance(self._environment.runner, MasterRunner)
        self._environment.runner.send_message(kind, data, worker if distributed else None)

    def _is_missing(self, worker: str) -> bool:
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            return False
        node = runner.clients.get(worker)
        return node is None or node.state == STATE_MISSING

    def _say(self, state: dict[str, Any]) -> None:
        if self._progress_fd < 0:
            return
        try:
            os.write(self._progress_fd, json.dumps(state).encode() + b"\n")
        except BrokenPipeError:
            # The parent died without a word; a load generator nobody controls must not go on.
            self._progress_fd = -1
            gevent.spawn(self._environment.runner.quit)
