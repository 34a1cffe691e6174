"""Stopping at a bad moment: whatever is killed and however, nothing of the run stays on the machine.

No model comes up here; each run is stopped while Ray starts, when most of what it will be made of is being made.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from live_fleet import ROOT, Footprint, LiveFleet, eventually, fleet_file, no_interrupts, remains

from serving import launch

pytestmark = pytest.mark.integration
GONE_S = 30


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[tuple[LiveFleet, subprocess.Popen[str]]]:
    """A fleet of its own, told to come up in the foreground of a process group of its own."""
    fleet = LiveFleet(tmp_path / "state", fleet_file(tmp_path, ("llama",), ("demo",)))
    with open(tmp_path / "up.log", "w") as log:
        up = subprocess.Popen(fleet.up_command(), cwd=ROOT, env=fleet.environment, text=True, stdout=log, stderr=log,
                              stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield fleet, up
    finally:
        with no_interrupts():
            if up.poll() is None:
                up.kill()
            up.wait()
            fleet.run("down")


def in_step(fleet: LiveFleet, name: str) -> Footprint:
    """What the run holds once it is in the step of that name, or a later one."""
    def reached() -> bool:
        file = fleet.state_dir / "run.json"
        return file.exists() and any(s.name == name for s in fleet.state.steps)

    eventually(reached, f"the step {name!r}", 180, 0.02)
    found = fleet.footprint()
    assert found is not None
    return found


def ray_at_work(fleet: LiveFleet) -> Footprint:
    """What the run holds once Ray's own processes are there."""
    in_step(fleet, "ray")

    def raylet() -> Footprint | None:
        found = fleet.footprint()
        return found if found and any("raylet" in _name(p) for p in found.processes) else None

    return eventually(raylet, "Ray's processes", 30, 0.02)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def nothing_is_left(fleet: LiveFleet, run: str, before: Footprint) -> None:
    """Raises: AssertionError that names what is there still after the time allowed."""
    try:
        eventually(lambda: not remains(run, before), "all is gone", GONE_S, 0.2)
    except AssertionError:
        raise AssertionError(f"left behind: {remains(run, before)}") from None


def test_ctrl_c_while_ray_starts(starting: tuple[LiveFleet, subprocess.Popen[str]]) -> None:
    fleet, up = starting
    before = ray_at_work(fleet)
    run = fleet.state.run
    up.send_signal(signal.SIGINT)
    assert up.wait(GONE_S) == 130
    nothing_is_left(fleet, run, before)
    assert fleet.state.state == "stopped"
    assert fleet.run("status").returncode == 3


def test_a_guard_killed_while_ray_starts(starting: tuple[LiveFleet, subprocess.Popen[str]]) -> None:
    fleet, up = starting
    before = ray_at_work(fleet)
    run = fleet.state.run
    psutil.Process(fleet.state.guard_pid).kill()
    assert up.wait(GONE_S) == 4, "the start has failed"
    nothing_is_left(fleet, run, before)
    assert fleet.state.state in ("stopped", "failed")
    assert fleet.run("status").returncode == 3


def test_down_cleans_up_after_guard_and_supervisor_were_killed_at_once(
        starting: tuple[LiveFleet, subprocess.Popen[str]]) -> None:
    fleet, up = starting
    in_step(fleet, "model llama")  # Ray's renamed workers are there

    def replica() -> Footprint | None:
        found = fleet.footprint()
        return found if found and any(_name(p).startswith("ray::") for p in found.processes) else None

    before = eventually(replica, "a worker that Ray has renamed", 120, 0.1)
    run, guard = fleet.state.run, psutil.Process(fleet.state.guard_pid)
    (supervisor,) = [c for c in guard.children() if "serving.supervisor" in c.cmdline()]
    for process in (supervisor, guard):
        process.send_signal(signal.SIGSTOP)  # neither may notice the other's end
    for process in (supervisor, guard):
        process.kill()
    assert up.wait(GONE_S) == 4
    done = fleet.run("down")
    assert done.returncode == 0, done.stderr
    left = remains(run, before)
    assert not left, f"left behind after down: {left}"
    assert not launch.work_dir(run).exists()
    assert fleet.run("down").returncode == 3, "there is nothing more to stop"
