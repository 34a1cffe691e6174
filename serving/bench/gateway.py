"""`flotilla bench gateway`: what a server costs that stands before vLLM, beside vLLM without one.

Bare vLLM stays up; the other arms come up one after the other, because an idle Ray takes a tenth of a core or two from
whoever is measured. Arm and bare vLLM are loaded in turn, level by level, round by round, every second round in
reverse, so that neither the order nor a machine that changes over the hour favours one of them.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from serving import checkpoints
from serving.bench.arms import ARMS, BASE, MODEL, PATH, Arm, Place
from serving.bench.children import Child, Launch, apply, busy, free_port, spent
from serving.bench.client import Load
from serving.bench.figures import QUIET, Run, against
from serving.errors import FlotillaError, StartFailed

Say = Callable[[str], None]
TOKENS = 64
_TRIES = 3
REQUESTS = {1: 48, 8: 192, 32: 512, 128: 768}  # some seconds at each level on two cores


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    arms: tuple[Arm, ...]
    streams: tuple[int, ...]
    rounds: int
    state_dir: Path
    peers: Path


class Failures:
    """What did not work, and for whom it is not tried again."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int | None], str] = {}  # by arm and number of streams; None: it did not start

    def has(self, name: str, streams: int | None = None) -> bool:
        """Whether an arm has failed, altogether or at so many streams."""
        return (name, None) in self.found or (name, streams) in self.found

    def rows(self) -> list[dict[str, Any]]:
        """For the report."""
        return [{"name": name, "streams": streams, "reason": why} for (name, streams), why in self.found.items()]


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report; what fails costs the arm and the number of streams that it happened at.

    Raises: StartFailed when the arm that all are compared with does not start, or nothing was measured.
    """
    folder = Path(tempfile.mkdtemp(prefix="flo-"))  # short: HAProxy's socket below it takes at most 97 bytes
    failures: Failures = Failures()
    runs: list[Run] = []
    try:
        say("small checkpoint")
        checkpoint = checkpoints.make("qwen3", plan.state_dir.absolute() / "checkpoints")
        place = Place(folder / "0", checkpoint, plan.peers.absolute(), free_port(), free_port())
        base, *others = plan.arms
        with _up(base, place, failures, say) as bare:
            for number, arm in enumerate(others if bare else [], 1):
                assert bare is not None
                over = bare[1].url.removeprefix("http://")
                place = replace(place, folder=folder / str(number), port=free_port(), port_2=free_port(), over=over)
                with _up(arm, place, failures, say) as up:
                    if up is not None:
                        first = (number - 1) * plan.rounds
                        _pair(arm.name, {BASE: bare, arm.name: up}, plan, first, runs, failures, say)
            if bare and not others:
                _pair(BASE, {BASE: bare}, plan, 0, runs, failures, say)
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    for (name, _), why in failures.found.items():
        if name == BASE or not runs:
            who = f"{BASE}, which all are compared with, failed" if name == BASE else name
            raise StartFailed(f"{who}: {why}")
    return {
        "machine": machine(),
        "load": {"tokens": TOKENS, "requests": {str(s): REQUESTS.get(s, s * 10) for s in plan.streams},
                 "rounds": plan.rounds, "compared_with": BASE},
        "arms": against([r for r in runs if not failures.has(r.arm, r.streams)], BASE),
        "says": {arm.name: arm.says for arm in plan.arms},
        "failed": failures.rows(),
    }


Up = tuple[Child, Launch]


def _pair(arm: str, up: dict[str, Up], plan: Plan, first: int, runs: list[Run], failures: Failures, say: Say) -> None:
    """All rounds of an arm and of bare vLLM. `first`: number of the first round; no two arms share one."""
    for number in range(plan.rounds):
        for streams in plan.streams:
            for name in up if number % 2 == 0 else reversed(up):
                if failures.has(arm, streams):  # one without the other says nothing
                    continue
                say(f"{arm}: round {number + 1} of {plan.rounds}, {name} at {streams} streams")
                with _noted(failures, arm, streams, "" if name == arm else f"{name} beside it: "):
                    runs.append(_quiet_run(name, up, streams, first + number, say))


@contextlib.contextmanager
def _noted(failures: Failures, name: str, streams: int | None, where: str = "") -> Iterator[None]:
    try:
        yield
    except (FlotillaError, OSError) as error:
        failures.found[name, streams] = f"{where}{error}"


def load(launch: Launch, streams: int, requests: int) -> Load:
    """Chat streams of TOKENS tokens each, the same for every arm."""
    body = json.dumps({
        "model": MODEL, "messages": [{"role": "user", "content": "Tell me how the harbour looks at night."}],
        "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    })
    host, _, port = launch.url.removeprefix("http://").partition(":")
    return Load(host, int(port), PATH, dict(launch.headers), [body], [[0]] * requests, streams, TOKENS)


def _quiet_run(name: str, children: dict[str, Up], streams: int, number: int, say: Say) -> Run:
    """A run, again while the machine is busy with other things; the quietest of them if none was quiet."""
    best: Run | None = None
    for tried in range(_TRIES):
        if tried:
            say(f"{name} at {streams} streams again: others took {best.others:.2f} cores" if best else name)
        run = _run(name, children, streams, number)
        if best is None or run.others < best.others:
            best = run
        if best.others <= QUIET:
            break
    assert best is not None
    return best


def _run(name: str, children: dict[str, Up], streams: int, number: int) -> Run:
    child, launch = children[name]
    arm, requests = ARMS[name], REQUESTS.get(streams, streams * 10)
    bare = None if not arm.over_base else children[BASE][0]

    def cpu() -> dict[tuple[str, int], float]:
        own = child.cpu(arm.roles)
        if bare is not None:
            own |= bare.cpu(ARMS[BASE].roles)
        return own

    machine_before, before = busy(), cpu()
    seen = apply(load(launch, streams, requests))
    used, all_used = spent(before, cpu()), busy() - machine_before
    others = max(0.0, all_used - sum(used.values()) - seen.cpu_s) / seen.wall_s
    return Run(name, streams, number, seen.wall_s, sum(seen.completion), len(seen.took_s), tuple(seen.ttft_s), used,
               others)


@contextlib.contextmanager
def _up(arm: Arm, place: Place, failures: Failures, say: Say) -> Iterator[Up | None]:
    """The arm, started and warm, or None when that failed. It is down when this ends."""
    child: Child | None = None
    up: Up | None = None
    try:
        say(f"{arm.name}: start")
        with _noted(failures, arm.name, None):
            launch = arm.launch(place)
            child = Child(arm.name, launch)
            child.wait_ready()
            say(f"{arm.name}: warm up")
            apply(load(launch, 16, 64))
            up = child, launch
        yield up
    finally:
        if child is not None:
            say(f"{arm.name}: stop")
            child.stop()


def keep_logs(folder: Path, state_dir: Path) -> None:
    """The servers' logs move to the state directory, in place of the last benchmark's."""
    target = state_dir / "logs" / "bench"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*/*.log"):
        shutil.copyfile(log, target / log.name)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "python": platform.python_version(), "kernel": platform.release()}
