"""`python -m loadtests.schedule FILE`: the requests that a scenario or a trace stands for, one JSON object a line.

For programs that plan with the same traffic as load tests send: at_s, model, input_tokens, output_tokens, session, and
for traces that name them, blocks and block_tokens. A turn's input is all that is sent: the shared system prompt, what
was said and answered before, and the turn's own. Tools and pictures are not in it: their tokens only a model can count.
A turn after the first comes its user's thinking time after the one before, because when that one is answered is for the
reader to say; closed loops have no schedule and are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.arrivals import schedule
from loadtests.errors import LoadTestError, ScenarioError
from loadtests.pacing import Closed
from loadtests.resample import read_servegen, resample
from loadtests.scenario import load_scenario
from loadtests.traces import Row, read_trace

_FORMATS = ("azure", "mooncake", "burstgpt", "servegen", "jsonl")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for a file that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.schedule", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="scenario (YAML), trace, or a folder of ServeGen's chunks")
    parser.add_argument("--format", choices=_FORMATS, help="of a trace; by default as its first line looks")
    parser.add_argument("--length", type=float, default=86_400.0, metavar="S", help="seconds of ServeGen to draw")
    parser.add_argument("--seed", type=int, default=0, help="of ServeGen's requests")
    arguments = parser.parse_args(argv)
    try:
        for one in requests(arguments.file, arguments.format, arguments.length, arguments.seed):
            sys.stdout.write(json.dumps(one) + "\n")
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def requests(file: Path, kind: str | None, length_s: float, seed: int) -> Iterator[dict[str, Any]]:
    """The requests of a file, by arrival. Raises: ScenarioError."""
    if file.suffix in (".yaml", ".yml"):
        scenario = load_scenario(file)
        if all(isinstance(process, Closed) for process in scenario.processes.values()):
            raise ScenarioError(f"{file}: every user is in a closed loop, which has no schedule: its requests follow "
                                "from the answers; give arrivals of an open loop")
        for arrival in schedule(scenario, file.parent):
            at, said = arrival.at_s, arrival.system_tokens
            for turn in arrival.turns:
                at, said = at + turn.think_s, said + turn.prompt_tokens
                yield {"at_s": at, "model": arrival.model, "input_tokens": said,
                       "output_tokens": turn.output_tokens, "session": arrival.index + 1,
                       "blocks": list(turn.blocks), "block_tokens": turn.block_tokens}
                said += turn.output_tokens
        return
    for row in _rows(file, kind or _looks_like(file), length_s, seed):
        yield {"at_s": row.at_s, "model": row.model, "input_tokens": row.input_tokens,
               "output_tokens": row.output_tokens, "session": 0, "blocks": list(row.blocks),
               "block_tokens": row.block_tokens}


def _rows(file: Path, kind: str, length_s: float, seed: int) -> tuple[Row, ...]:
    if kind != "servegen":
        return read_trace(file, kind)
    return resample(read_servegen(file), 0.0, length_s,
                    lambda *of: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=of)))


def _looks_like(file: Path) -> str:
    if file.is_dir():
        return "servegen"
    try:
        with file.open(encoding="utf-8") as lines:
            first = lines.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{file}: the trace cannot be read: {error}") from error
    for sign, kind in (("ContextTokens", "azure"), ("Request tokens", "burstgpt"), ("hash_ids", "mooncake"),
                       ("at_s", "jsonl")):
        if sign in first:
            return kind
    raise ScenarioError(f"{file}: its first line is of no known trace; say --format {'|'.join(_FORMATS)}")


if __name__ == "__main__":
    sys.exit(main())
