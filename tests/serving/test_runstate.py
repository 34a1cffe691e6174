"""What is known of a run, kept in one file."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from serving import processes, runstate
from serving.runstate import RunState, StepDone

STATE = RunState(
    run="abc",
    guard_pid=os.getpid(),
    fleet_name="laptop",
    fleet_file="/f.yaml",
    api="http://x",
    metrics="http://y",
    state="starting",
    started_at=1.0,
    logs="/logs",
    sources={"qwen": "org/name"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = STATE.begin("ray", 2.0).begin("models", 3.0)
    runstate.write(tmp_path / "new", state)
    assert runstate.read(tmp_path / "new") == state
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["run.json"]


def test_steps_follow_each_other() -> None:
    state = STATE.begin("ray", 2.0).begin("models", 3.0)
    assert state.steps == (StepDone("ray", 2.0, 3.0), StepDone("models", 3.0, None))
    assert state.done(5.0).steps[-1] == StepDone("models", 3.0, 5.0)
    assert state.done(5.0).done(9.0) == state.done(5.0)
    assert STATE.steps == ()


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", "{}", '{"steps": []}', '{"steps": [{"x": 1}]}', "\x00\xff"]
)
def test_a_file_that_makes_no_sense_is_no_run(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        runstate.path(tmp_path).write_bytes(text.encode("latin-1"))
    assert runstate.read(tmp_path) is None


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    big = replace(STATE, error="x" * 200_000)
    runstate.write(tmp_path, big)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            runstate.write(tmp_path, big)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(runstate.read(tmp_path) == big for _ in range(100))
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize(
    ("state", "alive", "running"),
    [
        ("up", True, True),
        ("starting", True, True),
        ("up", False, False),
        ("stopped", True, False),
        ("stopping", True, True),
    ],
)
def test_a_run_runs_while_its_guard_does(
    monkeypatch: pytest.MonkeyPatch, state, alive: bool, running: bool
) -> None:
    asked = []
    monkeypatch.setattr(processes, "alive", lambda pid, mark: asked.append((pid, mark)) or alive)
    assert replace(STATE, state=state).running is running
    assert set(asked) <= {(STATE.guard_pid, "abc")}
