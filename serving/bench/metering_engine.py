"""The process that `flotilla bench metering` measures: a vLLM engine whose scheduler changes its class between passes.

Run as `python -m serving.bench.metering_engine WORK SAID`; writes notes and at last what it has found to the file SAID,
a line of JSON each. The engine's core runs in this process, stepped as its own process would step it; what is timed is
one such step: schedule, run the model, update. Between passes nothing is in flight, so that one scheduler object can be
vLLM's class for a pass and the metered one for the next. May not happen in here: figures.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.bench import own_time
from serving.bench.arms import ENGINE
from serving.bench.metering import TAIL, WARM, ArmName, Pass, Work, order

_SERVER_ONLY = ("enable_prompt_tokens_details", "structured_outputs_config")
_PROMPT = 16  # tokens of each request's prompt
_WORDS = 2000  # of the small checkpoints' vocabulary

Engine = Any
Note = Callable[[str], None]


class Steps:
    """Stands in for the core's step function and times it. `own`: the stopwatch that is read beside each step."""

    def __init__(self, step: Callable[[], Any]) -> None:
        self._step = step
        self.own = own_time.OwnTime()
        self._found: list[tuple[int, int, int, int]] = []  # ns by the clock, of CPU, metering's own; requests in it

    def __call__(self) -> Any:
        self.own.take()
        cpu, begun = time.thread_time_ns(), time.perf_counter_ns()
        outputs, executed = self._step()
        took, cpu = time.perf_counter_ns() - begun, time.thread_time_ns() - cpu
        given = outputs.get(0) if outputs else None
        self._found.append((took, cpu, self.own.take(), len(given.outputs) if given else 0))
        return outputs, executed

    def taken(self, arm: ArmName, turn: int, running: int) -> Pass:
        """The pass since the last call: its steps in which so many requests decoded together, but for its ends."""
        full = [found for *found, given in self._found if given == running][WARM:-TAIL]
        self._found = []
        took, cpu, own = ([found[i] for found in full] for i in range(3))
        return Pass(arm, turn, took, cpu, own if arm.startswith("timed") else [])


def run(work: Work, note: Note) -> dict[str, Any]:
    """All passes. Returns what `metering.measure` turns into the report."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    clocks = {"timed": time.perf_counter_ns, "timed_cpu": time.thread_time_ns}
    owns = {arm: own_time.OwnTime(clock) for arm, clock in clocks.items()}
    address = f"flotilla-bench-{uuid.uuid4().hex}"
    with subprocess.Popen([sys.executable, "-m", "serving.bench.metering_books", address, str(work.running)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as books:
        assert books.stdin is not None and books.stdout is not None
        if books.stdout.readline() != b"ready\n":
            raise RuntimeError("the process with the books did not start")
        note("start an engine")
        engine = _engine(work, address)
        core = engine.engine_core.engine_core
        steps = core.step_fn = Steps(core.step_fn)
        ahead = bool(core.async_scheduling)
        metered, base = type(core.scheduler), AsyncScheduler if ahead else Scheduler
        if not metered.__name__.startswith("Metered"):
            raise RuntimeError(f"the engine has a {metered.__name__}, not a metered one")
        kinds: dict[ArmName, type] = {"plain": base, "metered": metered}
        kinds |= {arm: own_time.timed(metered, base, own) for arm, own in owns.items()}
        arms: list[ArmName] = ["plain", "metered"]
        planned = [(arm, -1) for arm in (*arms, *clocks)] + order(work.rounds, arms)
        passes = []
        for number, (arm, turn) in enumerate(planned):
            note(f"pass {number + 1} of {len(planned)}: {arm}{' to warm up' if turn < 0 else ''}")
            core.scheduler.__class__ = kinds[arm]
            steps.own = owns.get(arm, steps.own)
            _pass(engine, work)
            passes.append(steps.taken(arm, turn, work.running))
        said, _ = books.communicate(timeout=30)
        return {"passes": [asdict(p) for p in passes if p.turn >= 0], "books": json.loads(said),
                "clocks_ns": {arm: own_time.cost_ns(clock) for arm, clock in clocks.items()},
                "engine": {"async_scheduling": ahead, "prompt_tokens": _PROMPT}}


def _engine(work: Work, address: str) -> Engine:
    """As a replica starts it, but with its core in this process."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from serving.engines.scheduler import ADDRESS_KEY, QUALIFIED_NAME

    arguments = {k: v for k, v in ENGINE.items() if k not in _SERVER_ONLY}
    arguments["max_num_seqs"] = max(arguments["max_num_seqs"], work.running)
    return LLMEngine.from_engine_args(EngineArgs(
        model=work.checkpoint, scheduler_cls=QUALIFIED_NAME, additional_config={ADDRESS_KEY: address},
        distributed_executor_backend="uni", disable_log_stats=False, **arguments))


def _pass(engine: Engine, work: Work) -> None:
    """So many requests from their first token to their last, all at once."""
    from vllm import SamplingParams

    gc.collect()
    for number in range(work.running):
        prompt = [3 + (number * 31 + at * 7) % _WORDS for at in range(_PROMPT)]
        sampling = SamplingParams(max_tokens=work.tokens, ignore_eos=True, temperature=0.0, detokenize=False)
        # the form that ids have in a replica: their length travels with every step
        engine.add_request(f"chatcmpl-flo-{uuid.uuid4().hex}", {"prompt_token_ids": prompt}, sampling)
    while engine.has_unfinished_requests():
        engine.step()


def main(work: str, said: str) -> None:
    """The whole process."""
    with Path(said).open("a", buffering=1) as out:
        found = run(Work.from_json(work), lambda text: print(json.dumps({"note": text}), file=out))
        print(json.dumps({"found": found}), file=out)


if __name__ == "__main__":
    main(*sys.argv[1:])
