"""`flotilla bench gateway`: what a server costs that stands before vLLM, beside vLLM without one.

All arms are up at the same time and one is loaded at a time: level by level, round by round, every second round in
reverse, so that neither the order nor a machine that changes over the hour favours an arm.
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
from typing import Any, TypeVar

import psutil

from serving import checkpoints
from serving.bench.arms import ARMS, BASE, MODEL, PATH, Arm, Place
from serving.bench.children import Child, Launch, apply, busy, free_port, spent
from serving.bench.client import Load
from serving.bench.figures import QUIET, Run, against
from serving.errors import FlotillaError, StartFailed

T = TypeVar("T")
Say = Callable[[str], None]
TOKENS = 64
_TRIES = 3
REQUESTS = {1: 48, 8: 192, 32: 640, 128: 1280}  # some seconds at each level on two cores


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    arms: tuple[Arm, ...]
    streams: tuple[int, ...]
    rounds: int
    state_dir: Path
    peers: Path


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed when the arm that all are compared with fails."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))  # short: HAProxy's socket below it takes at most 97 bytes
    failed: dict[str, str] = {}
    runs: list[Run] = []
    try:
        say("small checkpoint")
        checkpoint = checkpoints.make("qwen3", plan.state_dir.absolute() / "checkpoints")
        with _up(plan, folder, checkpoint, failed, say) as children:
            for name, (child, launch) in list(children.items()):
                say(f"{name}: warm up")
                _try(name, failed, lambda c=child, n=launch: apply(load(n, 16, 64)))  # type: ignore[misc]
            for number in range(plan.rounds):
                for streams in plan.streams:
                    order = [n for n in children if n not in failed]
                    for name in order if number % 2 == 0 else reversed(order):
                        say(f"round {number + 1} of {plan.rounds}: {name} at {streams} streams")
                        run = _try(name, failed, lambda n=name, s=streams, r=number: _quiet_run(  # type: ignore[misc]
                            n, children, s, r, say))
                        runs += [run] if run else []
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    if BASE in failed:
        raise StartFailed(f"{BASE}, which all are compared with, failed: {failed[BASE]}")
    return {
        "machine": machine(),
        "load": {"tokens": TOKENS, "requests": {str(s): REQUESTS.get(s, s * 10) for s in plan.streams},
                 "rounds": plan.rounds, "compared_with": BASE},
        "arms": against([r for r in runs if r.arm not in failed], BASE),
        "says": {arm.name: arm.says for arm in plan.arms},
        "failed": [{"name": name, "reason": reason} for name, reason in failed.items()],
    }


def load(launch: Launch, streams: int, requests: int) -> Load:
    """Chat streams of TOKENS tokens each, the same for every arm."""
    body = json.dumps({
        "model": MODEL, "messages": [{"role": "user", "content": "Tell me how the harbour looks at night."}],
        "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    })
    host, _, port = launch.url.removeprefix("http://").partition(":")
    return Load(host, int(port), PATH, dict(launch.headers), [body], [[0]] * requests, streams, TOKENS)


def _quiet_run(name: str, children: dict[str, tuple[Child, Launch]], streams: int, number: int, say: Say) -> Run:
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


def _run(name: str, children: dict[str, tuple[Child, Launch]], streams: int, number: int) -> Run:
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


def _try(name: str, failed: dict[str, str], work: Callable[[], T]) -> T | None:
    try:
        return work()
    except (FlotillaError, OSError) as error:
        failed[name] = str(error)
        return None


@contextlib.contextmanager
def _up(plan: Plan, folder: Path, checkpoint: Path, failed: dict[str, str],
        say: Say) -> Iterator[dict[str, tuple[Child, Launch]]]:
    """All arms that start, in order. Everything is down when it ends."""
    up: dict[str, tuple[Child, Launch]] = {}
    place = Place(folder, checkpoint, plan.peers.absolute(), 0, 0)
    try:
        for number, arm in enumerate(plan.arms):
            say(f"{arm.name}: start")
            place = replace(place, folder=folder / str(number), port=free_port(), port_2=free_port())
            child = None
            try:
                launch = arm.launch(place)
                child = Child(arm.name, launch)
                child.wait_ready()
                up[arm.name] = (child, launch)
            except (FlotillaError, OSError) as error:
                failed[arm.name] = str(error)
                if child is not None:
                    child.stop()
                if arm.name == BASE:
                    break
            except BaseException:
                if child is not None:
                    child.stop()
                raise
            if arm.name == BASE:
                place = replace(place, over=up[BASE][1].url.removeprefix("http://"))
        yield up
    finally:
        for name, (child, _) in reversed(list(up.items())):
            say(f"{name}: stop")
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
