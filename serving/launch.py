"""Starting and stopping runs from a command line: plan, environment, guard, waiting."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from serving import processes, runstate
from serving.engines import caches
from serving.errors import FleetNotRunning, FleetRunning
from serving.plan import Changes, Plan, fleet
from serving.runstate import RunState
from serving.settings import Settings


def make_plan(settings: Settings, fleet_file: Path, changes: Changes) -> Plan:
    """A plan for a new run. Raises: FleetRunning, ConfigError."""
    last = runstate.read(settings.state_dir)
    if last is not None:
        if last.running:
            raise FleetRunning(f"the fleet {last.fleet_name!r} runs already (API {last.api}); `flotilla down` stops it")
        clear(last)
    found = fleet(fleet_file, changes)
    run = secrets.token_hex(4)
    return Plan(
        run, str(settings.state_dir.absolute()), str(work_dir(run)), str(fleet_file.absolute()), found.name,
        f"http://{found.gateway.host}:{found.gateway.port}",
        f"http://{found.metrics.host}:{found.metrics.port}/metrics", changes,
    )


def work_dir(run: str) -> Path:
    """A run's temporary folder; short, because paths of unix sockets are limited to 107 bytes."""
    return Path(tempfile.gettempdir()) / f"flo-{run}"


def clear(state: RunState) -> int:
    """End what a dead run has left. Returns how many processes there were."""
    work = work_dir(state.run)
    count = processes.sweep(processes.Run(state.run, str(work)))
    shutil.rmtree(work, ignore_errors=True)
    return count


# What Ray and the engines need in the environment of every process, on one machine and in the pods of a cluster.
EVERYWHERE = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_worker_niceness": "0",  # Ray's own 15 lets whatever else runs on the machine go before the API
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


def environment(plan: Plan) -> dict[str, str]:
    """What the run's processes need in their environment; Ray reads most of it when it is imported."""
    return EVERYWHERE | caches.environment(Path(plan.state_dir), os.environ) | {
        processes.MARK: plan.run,
        "FLOTILLA_STATE_DIR": plan.state_dir,
        # what Ray does in the background took a tenth of a core; on two cores that is a twentieth of the throughput
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.4",
        "RAY_enable_metrics_collection": "0",
        "RAY_event_stats": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_raylet_report_resources_period_milliseconds": "1000",
        "VLLM_RPC_BASE_PATH": plan.work_dir,  # vLLM's sockets go when the run's folder goes
    }


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(plan: Plan, with_parent: bool) -> subprocess.Popen[bytes]:
    """Start the guard. `with_parent`: the run ends when the calling process does, however it ends."""
    command = [sys.executable, "-m", "serving.guard"] + (["--with-parent"] if with_parent else [])
    Path(plan.logs).mkdir(parents=True, exist_ok=True)
    with open(Path(plan.logs) / "guard.log", "ab") as out:
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True,
                                 env=os.environ | environment(plan))
    assert guard.stdin is not None
    guard.stdin.write(plan.to_json().encode())
    guard.stdin.close()
    return guard


def follow(settings: Settings, plan: Plan, guard: subprocess.Popen[bytes],
           on_change: Callable[[RunState], None] = lambda state: None) -> RunState:
    """Wait until the run is up or over, telling every change. Returns the last state."""
    seen: RunState | None = None
    while True:
        over = guard.poll() is not None
        state = runstate.read(settings.state_dir)
        if state is not None and state.run == plan.run and state != seen:
            seen = state
            on_change(state)
        if over or (seen is not None and seen.state in ("up", "failed", "stopped")):
            if seen is None:
                raise FleetNotRunning(f"the guard did not start; see {plan.logs}/guard.log")
            return seen
        time.sleep(0.1)


def stop(settings: Settings, timeout_s: float = 60.0) -> RunState:
    """Stop the run of this state directory and wait until nothing is left. Raises: FleetNotRunning."""
    state = runstate.read(settings.state_dir)
    if state is None:
        raise FleetNotRunning(f"no fleet has been started from {settings.state_dir}")
    if not state.running:
        if clear(state):
            runstate.write(settings.state_dir, replace(state, state="stopped"))
            return state
        raise FleetNotRunning("no fleet runs")
    guard = psutil.Process(state.guard_pid)
    guard.send_signal(signal.SIGTERM)
    try:
        guard.wait(timeout_s)
    except psutil.TimeoutExpired:
        guard.kill()
    clear(state)
    return state


def current(settings: Settings) -> RunState:
    """The run that is up or starting. Raises: FleetNotRunning."""
    state = runstate.read(settings.state_dir)
    if state is None or not state.running:
        raise FleetNotRunning("no fleet runs; `flotilla up` starts one")
    return state
