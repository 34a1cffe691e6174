"""`flotilla bench metering`: what metering takes from an engine step, beside vLLM's schedulers without it.

One small engine takes turns: a pass of requests that decode together under a scheduler of vLLM's, the same pass under
the metered one with a replica's books listening in another process, every second turn in reverse. The passes of a turn
do the same steps in the same process, so that only the scheduler differs; steps are also timed by the engine thread's
CPU clock, which stands still while others have the core. Machines still swing by more than the percent that is asked
about; so further passes time metering's own code by itself (`own_time`), and that figure answers.
May not happen in here: importing vLLM, which is for `metering_engine`, the process that is measured.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from serving import checkpoints
from serving.bench.arms import ENGINE_ENV
from serving.bench.children import Child, Launch, busy, clean_environment, spent
from serving.bench.figures import Spread, percentile
from serving.bench.gateway import Say, keep_logs, machine
from serving.errors import StartFailed

ArmName = Literal["plain", "metered", "timed", "timed_cpu"]
SAYS: dict[ArmName, str] = {
    "plain": "the scheduler that vLLM would have chosen, which the metered one is made from",
    "metered": "Flotilla's MeteredScheduler, books listening",
    "timed": "the metered one, its own code timed by the clock",
    "timed_cpu": "the metered one, its own code timed by the thread's CPU clock",
}
LIMIT = 0.01  # the share of a step's time that metering may take
GPU_STEPS_MS = (10.0, 30.0)
TURNS = 4  # of each scheduler per round
WARM = 12  # steps at the beginning of each pass that do not count
TAIL = 2  # steps at its end, when requests leave
_POLL_S = 0.25
_START_S, _PASS_S = 240.0, 60.0


@dataclass(frozen=True)
class MeteringPlan:
    """What to measure. `tokens`: answer length of each request, which is the number of steps of a pass."""

    rounds: int
    running: int
    state_dir: Path
    tokens: int = 128


@dataclass(frozen=True)
class Work:
    """What the engine's process is told. `checkpoint`: folder of the model."""

    checkpoint: str
    rounds: int
    running: int
    tokens: int

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Pass:
    """One pass: its steps at full load in order, nanoseconds by the clock and of the thread's CPU.

    `turn`: passes of one turn are compared. `own_ns`: of each step, metering's own code; none but in timed passes.
    """

    arm: ArmName
    turn: int
    steps_ns: Sequence[int]
    cpu_ns: Sequence[int]
    own_ns: Sequence[int] = ()


@dataclass(frozen=True)
class BooksCost:
    """What the replica's side spent. `take_ns`: booking one step at full load. `cpu_s`: all CPU of its process, from
    the first step to the last of `steps`: reading, decoding, booking, two readings a second."""

    take_ns: Sequence[int]
    cpu_s: float
    steps: int


def order(rounds: int, arms: Sequence[ArmName]) -> list[tuple[ArmName, int]]:
    """The passes and their turns: TURNS turns of all arms per round, every second in reverse, then the timed ones."""
    found: list[tuple[ArmName, int]] = []
    for number in range(rounds):
        for turn in range(number * TURNS, (number + 1) * TURNS):
            found += [(arm, turn) for arm in (arms if turn % 2 == 0 else reversed(arms))]
        found += [("timed", number), ("timed_cpu", number)]
    return found


def measure(plan: MeteringPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed when the engine does not start or breaks off."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))
    try:
        say("small checkpoint")
        checkpoint = checkpoints.make("qwen3", plan.state_dir.absolute() / "checkpoints")
        work = Work(str(checkpoint), plan.rounds, plan.running, plan.tokens)
        found, others = _engine(folder / "engine", work, say)
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    passes = [Pass(**p) for p in found["passes"]]
    load = {"model": "small:qwen3", "running": plan.running, "tokens": plan.tokens, "rounds": plan.rounds,
            "turns": plan.rounds * TURNS, "steps_per_pass": len(passes[0].steps_ns), **found["engine"]}
    return {"machine": machine(), "load": load, "says": SAYS, "others_cores": round(others, 2),
            **figures(passes, BooksCost(**found["books"]), found["clocks_ns"])}


def _engine(folder: Path, work: Work, say: Say) -> tuple[dict[str, Any], float]:
    """Run the engine's process to its end: what it has found, and the cores that others took meanwhile."""
    said = folder / "said"
    env = clean_environment() | ENGINE_ENV
    begun, before = time.monotonic(), busy()
    child = Child("metering-engine", Launch(_command(work, str(said)), env, folder, "", "", {}, "", files={"said": ""}))
    used: dict[tuple[str, int], float] = {}
    try:
        deadline, read = begun + _START_S + _PASS_S * len(order(work.rounds, tuple(SAYS))), 0
        while time.monotonic() < deadline:
            ended = _ended(child)
            used |= child.cpu()
            lines = said.read_text().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith("\n")]
            for line in whole[read:]:
                if "found" in line:
                    others = busy() - before - sum(spent({}, used).values())
                    return line["found"], max(0.0, others) / (time.monotonic() - begun)
                say(line["note"])
            read = len(whole)
            if ended:
                raise StartFailed(f"the engine broke off; {child.last_words()}")
            time.sleep(_POLL_S)
        raise StartFailed(f"the engine did not finish in time; {child.last_words()}")
    finally:
        child.stop()


def _command(work: Work, said: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "serving.bench.metering_engine", work.to_json(), said)


def _ended(child: Child) -> bool:
    try:
        return psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def figures(passes: Sequence[Pass], books: BooksCost, clocks_ns: Mapping[str, float]) -> dict[str, Any]:
    """The report's figures. What answers is `own_share.cpu`: CPU of metering's own code over CPU of the steps' rest.

    It does not see what metering does to the rest of a step (caches, the books' process beside it): `ratio` does,
    within its noise. So metering is `within` its limit only where the ratio's interval does not contradict.

    `clocks_ns`: what the stopwatches of the timed passes add to each overridden call. It stays in the figures, which
    are upper bounds by it. Raises: StartFailed when passes are not of one length.
    """
    lengths = {len(p.steps_ns) for p in passes}
    if len(lengths) != 1 or not min(lengths):
        raise StartFailed(f"the passes had {sorted(lengths)} steps at full load; all should have the same number")
    arms = [arm for arm in SAYS if not arm.startswith("timed") and any(p.arm == arm for p in passes)]
    by_clock = [(own, step - own) for p in passes if p.arm == "timed"
                for own, step in zip(p.own_ns, p.steps_ns, strict=True)]
    by_cpu = [(own, cpu - own) for p in passes if p.arm == "timed_cpu"
              for own, cpu in zip(p.own_ns, p.cpu_ns, strict=True)]
    share = sum(own for own, _ in by_cpu) / sum(rest for _, rest in by_cpu)
    own_us = statistics.fmean(own for own, _ in by_cpu) / 1e3
    books_us = books.cpu_s / books.steps * 1e6
    ratio = {f"{arm}/{base}": ratios(passes, arm, base) for base, arm in itertools.combinations(arms, 2)}
    contradicted = ratio["metered/plain"]["cpu_p50"]["interval_95"][0] > 1 + LIMIT
    return {
        "step_us": {arm: _micro([ns for p in passes if p.arm == arm for ns in p.steps_ns]) for arm in arms},
        "step_cpu_us": {arm: _micro([ns for p in passes if p.arm == arm for ns in p.cpu_ns]) for arm in arms},
        "ratio": ratio,
        "own_us": _micro([own for own, _ in by_clock]) | {"stopwatch": round(clocks_ns["timed"] / 1e3, 2)},
        "own_cpu_us": _micro([own for own, _ in by_cpu]) | {"stopwatch": round(clocks_ns["timed_cpu"] / 1e3, 2)},
        "own_share": {"cpu": round(share, 5)} | {
            f"p{q}": round(percentile([own / rest for own, rest in by_clock], q), 5) for q in (50, 99)},
        "books_us": _micro(books.take_ns) | {"cpu_per_step": round(books_us, 1)},
        "gpu_steps": [{"step_ms": ms, "own_share": round(own_us / 1e3 / ms, 5),
                       "books_cores": round(books_us / 1e3 / ms, 5)} for ms in GPU_STEPS_MS],
        "answer": "own_share.cpu", "limit": LIMIT, "contradicted": contradicted,
        "within": share <= LIMIT and not contradicted,
    }


def ratios(passes: Sequence[Pass], arm: ArmName, base: ArmName) -> dict[str, dict[str, Any]]:
    """`arm` over `base`, of each turn's middle step times: the median over the turns, with two kinds of spread."""
    found = {}
    for name, middle, times in (
            ("p50", statistics.median, lambda p: p.steps_ns), ("mean", statistics.fmean, lambda p: p.steps_ns),
            ("cpu_p50", statistics.median, lambda p: p.cpu_ns), ("cpu_mean", statistics.fmean, lambda p: p.cpu_ns)):
        of = {(p.turn, p.arm): float(middle(times(p))) for p in passes}
        values = [of[turn, arm] / value for (turn, of_arm), value in of.items() if of_arm == base]
        spread = Spread.of(values)
        found[name] = {"median": round(spread.median, 4), "interval_95": [round(v, 4) for v in interval(values)],
                       "turns": spread.range(4)}
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what `values` were drawn from lies with at least 95 %, whatever they are spread like.

    Order statistics (the sign test turned round): below six values, the whole range, which is then less sure.
    """
    ordered, count = sorted(values), len(values)
    cut, below = 0, 1.0  # `below`: ways of 2**count in which at most `cut` values lie on one side of the median
    while below <= 0.025 * 2.0**count:
        cut += 1
        below += math.comb(count, cut)
    cut = max(cut - 1, 0)
    return ordered[cut], ordered[count - 1 - cut]


def _micro(ns: Sequence[int]) -> dict[str, float]:
    return {"p50": round(percentile(ns, 50) / 1e3, 1), "mean": round(statistics.fmean(ns) / 1e3, 1),
            "p99": round(percentile(ns, 99) / 1e3, 1)}
