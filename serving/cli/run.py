"""`flotilla up`, `down`: the life of a fleet on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from serving import launch, runstate
from serving.cli.output import console, settings, stderr
from serving.errors import ConfigError, StartFailed
from serving.plan import Changes
from serving.runstate import RunState, StepDone

FleetFile = Annotated[Path | None, typer.Argument(help="Fleet file; default: FLOTILLA_FLEET.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def up(
    file: FleetFile = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the fleet is up; it runs on.")] = False,
    model: Annotated[list[str] | None, typer.Option(
        "--model", "-m", metavar="NAME=SOURCE",
        help="Serve NAME from SOURCE instead: a hub id, a path, or small:FAMILY. May be repeated.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", min=1, max=65535)] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of the metrics.", min=1, max=65535)] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateway processes.", min=1)] = None,
    ready_fd: Annotated[int | None, typer.Option(help="Write `up` to this file descriptor when the fleet is up.",
                                                 hidden=True)] = None,
) -> None:
    """Start a fleet on this machine and hold it until Ctrl-C (or `flotilla down` with --detach)."""
    own = settings()
    changes = Changes(_sources(model or []), port, metrics_port, gateways)
    plan = launch.make_plan(own, file or own.fleet, changes)
    guard = launch.start(plan, with_parent=not detach)
    try:
        with Steps() as steps:
            state = launch.follow(own, plan, guard, steps.show)
        if state.state != "up":
            raise StartFailed(state.error or f"the fleet stopped; see {state.logs}")
        report(state)
        console.print(f"[green]up[/]  API {state.api}/v1  metrics {state.metrics}", highlight=False)
        if ready_fd is not None:
            with os.fdopen(ready_fd, "w") as ready:
                ready.write("up")
        if not detach:
            if ready_fd is None:
                console.print("Ctrl-C stops it.")
            code = guard.wait()
            if code:
                last = runstate.read(own.state_dir)
                raise StartFailed(last.error if last else "the fleet failed")
    except BaseException:
        end(guard)
        raise


def report(state: RunState) -> None:
    """Say which models did not come up and why, on stderr."""
    for failure in state.failures:
        stderr.print("[bold red]failed[/]  ", end="")
        stderr.print(f"model {failure.model}: {failure.message}", markup=False, highlight=False, soft_wrap=True)
    if state.failures:
        stderr.print(f"          the other models are served; logs: {state.logs}", highlight=False, soft_wrap=True)


def end(guard: subprocess.Popen[bytes]) -> None:
    """Ask a guard to stop its run and wait until nothing is left; further Ctrl-C are ignored meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if guard.poll() is None:
            guard.send_signal(signal.SIGTERM)
        guard.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _sources(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise ConfigError(f"--model {pair!r}: write NAME=SOURCE, for example qwen=Qwen/Qwen3-0.6B")
        found[name] = source
    return found


class Steps(contextlib.AbstractContextManager["Steps"]):
    """Shows each step of a start with its time: live on a terminal, a line per step elsewhere."""

    def __init__(self) -> None:
        self._steps: tuple[StepDone, ...] = ()
        self._failed: frozenset[str] = frozenset()
        self._printed = 0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Steps:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._live.stop()

    def show(self, state: RunState) -> None:
        """Take the newest state."""
        self._steps = state.steps
        self._failed = frozenset(f"model {f.model}" for f in state.failures)
        if not console.is_terminal:
            done = [s for s in state.steps if s.ended_at is not None]
            for step in done[self._printed :]:
                console.print(_line(step, time.time(), self._failed), highlight=False)
            self._printed = len(done)

    def _render(self) -> Text:
        now = time.time()
        return Text("\n").join(_line(s, now, self._failed) for s in self._steps)


def _line(step: StepDone, now: float, failed: frozenset[str] = frozenset()) -> Text:
    done = step.ended_at is not None
    seconds = (step.ended_at or now) - step.began_at
    mark = ("✗", "red") if step.name in failed else ("✓", "green") if done else ("…", "yellow")
    return Text.assemble(mark, f" {step.name:<24}", (f"{seconds:6.1f} s", "dim"))


def down() -> None:
    """Stop the fleet and wait until none of its processes is left."""
    state = launch.stop(settings())
    console.print(f"stopped {state.fleet_name}")
