"""What is known of the fleet that runs from a state directory: one small JSON file, replaced whole."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from serving import processes

State = Literal["starting", "up", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class StepDone:
    """One step of the start. Times: Unix seconds; `ended_at` is None while it runs."""

    name: str
    began_at: float
    ended_at: float | None = None


@dataclass(frozen=True)
class ModelFailure:
    """A model that did not come up while others did. `cause`: one word for programs, `WeightsError.cause` or engine.
    """

    model: str
    cause: str
    message: str


@dataclass(frozen=True)
class RunState:
    """A run of a fleet."""

    run: str
    guard_pid: int
    fleet_name: str
    fleet_file: str
    api: str
    metrics: str
    state: State
    started_at: float
    logs: str
    sources: dict[str, str]
    steps: tuple[StepDone, ...] = ()
    error: str = ""
    failures: tuple[ModelFailure, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its guard is alive."""
        return self.state != "stopped" and processes.alive(self.guard_pid, self.run)

    def begin(self, step: str, now: float) -> RunState:
        """The step before is done, this one begins."""
        return replace(self, steps=(*self.done(now).steps, StepDone(step, now)))

    def failing(self, failure: ModelFailure) -> RunState:
        """A model has failed; the others go on."""
        return replace(self, failures=(*self.failures, failure))

    def done(self, now: float) -> RunState:
        """The last step is done."""
        closed = tuple(replace(s, ended_at=now) if s.ended_at is None else s for s in self.steps)
        return replace(self, steps=closed)


def path(state_dir: Path) -> Path:
    """The file's path."""
    return state_dir / "run.json"


def read(state_dir: Path) -> RunState | None:
    """The run of this state directory, or None when there never was one or the file makes no sense."""
    try:
        raw = json.loads(path(state_dir).read_text())
        raw["steps"] = tuple(StepDone(**s) for s in raw["steps"])
        raw["failures"] = tuple(ModelFailure(**f) for f in raw.get("failures", ()))
        return RunState(**raw)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write(state_dir: Path, state: RunState) -> None:
    """Replace the file whole, so that a reader never sees half of it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    draft = path(state_dir).with_name(f"run.json.{os.getpid()}")
    draft.write_text(json.dumps(asdict(state), indent=1))
    draft.replace(path(state_dir))
