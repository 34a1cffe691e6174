"""The schedule: who arrives when and what they will ask, computed once from the seed.

A pure function of the scenario and of the traces it names: no clock, no socket. Times come from one random stream per
process and every arrival's content from a stream of its own, so that another rate or duration moves the arrivals in
time but leaves the n-th one what it was, and one model's traffic does not depend on another's. Workers take slices of
the one schedule.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loadtests.distributions import draw
from loadtests.pacing import Closed, Trace
from loadtests.people import (
    AgentUsers,
    ChatUsers,
    ConversationUsers,
    EmbeddingUsers,
    ReasoningUsers,
    ShoppingUsers,
    Users,
)
from loadtests.resample import read_servegen, resample
from loadtests.scenario import MixModel, Scenario
from loadtests.timing import arrival_times
from loadtests.traces import Row, read_trace

_TIMES, _CONTENT, _PACE = 0, 1, 2
_HERE = Path(".")


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to come. `think_s` is the pause after the previous reply (0 for the first turn).

    tool: name of the tool that this request makes the model call. after_tool: this request brings that tool's result
    instead of a question. picture: width and height of an image that goes with it. blocks: names of the pieces of
    `block_tokens` that a trace's prompt is made of. inputs: tokens of each text of an embeddings batch.
    """

    prompt_tokens: int
    output_tokens: int
    stream: bool
    text_seed: int
    think_s: float
    tool: str | None = None
    after_tool: bool = False
    picture: tuple[int, int] | None = None
    blocks: tuple[int, ...] = ()
    block_tokens: int = 0
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One user who comes at `at_s` seconds after the start and brings one or more turns. tools: how many the model is
    offered in every turn. In a closed loop `at_s` is when the user begins the first round; `user` is their number."""

    index: int
    at_s: float
    model: str
    user_kind: str
    system_tokens: int
    turns: tuple[Turn, ...]
    tools: int = 0
    user: int | None = None


def schedule(scenario: Scenario, beside: Path = _HERE) -> tuple[Arrival, ...]:
    """All arrivals of a run's open loops in order of time; equal for equal scenarios (the seed is part of it).

    beside: the folder of the scenario's file, where its traces are. Raises ScenarioError for a trace that cannot be
    read or has too little for the run to measure anything.
    """
    found: list[tuple[float, str | None, int, Row | None]] = []
    for name, process in scenario.processes.items():
        if isinstance(process, Trace):
            rows = trace_rows(scenario, process, name, beside)
            found += [(row.at_s, name, number, row) for number, row in enumerate(rows)]
        elif not isinstance(process, Closed):
            times = arrival_times(process, scenario.course, _stream(scenario.seed, _TIMES, *_key(name)))
            found += [(float(at), name, number, None) for number, at in enumerate(times)]
    found.sort(key=lambda item: (item[0], item[1] or "", item[2]))
    return tuple(_arrival(scenario, index, *item) for index, item in enumerate(found))


def slice_of(arrivals: Sequence[Arrival], worker: int, workers: int) -> tuple[Arrival, ...]:
    """The part of one of several workers: every n-th arrival, so that all are loaded alike at every moment. The slices
    are disjoint and together everything."""
    return tuple(arrivals[worker::workers])


def round_of(scenario: Scenario, name: str | None, user: int, number: int, index: int) -> Arrival:
    """The `number`-th round (from 0) of one user of a closed loop: what they ask next. `index` is its record's."""
    process = scenario.processes[name]
    assert isinstance(process, Closed)
    rng = _stream(scenario.seed, _CONTENT, *_key(name), user, number)
    arrival = _content(scenario, index, 0.0, name, rng)
    return replace(arrival, user=user)


def pause_of(scenario: Scenario, name: str | None, user: int, number: int) -> float:
    """Seconds that a user of a closed loop waits before that round; the first ones spread over one mean pause."""
    process = scenario.processes[name]
    assert isinstance(process, Closed)
    rng = _stream(scenario.seed, _PACE, *_key(name), user, number)
    return float(rng.random() if number == 0 else rng.exponential()) * process.think_time_s


def trace_rows(scenario: Scenario, process: Trace, name: str | None, beside: Path) -> tuple[Row, ...]:
    """A trace's rows as they will be replayed: in run seconds, scaled, cut off, those of this run only."""
    path, length = process.path(beside), scenario.duration_s * process.speed
    if process.format == "servegen":
        key = _key(name)
        rows = resample(
            read_servegen(path), process.start_s, length, lambda *of: _stream(scenario.seed, _TIMES, *key, *of)
        )
    else:
        end = process.start_s + length
        rows = tuple(row for row in read_trace(path, process.format) if process.start_s <= row.at_s < end)
        rows = tuple(_moved(row, -process.start_s) for row in rows)
    if process.models:
        rows = tuple(row for row in rows if row.model in process.models)
    return tuple(_scaled(row, process) for row in rows)


def _moved(row: Row, by_s: float) -> Row:
    return Row(row.at_s + by_s, row.input_tokens, row.output_tokens, row.model, row.blocks, row.block_tokens)


def _scaled(row: Row, process: Trace) -> Row:
    prompt = max(1, round(row.input_tokens * process.input_scale))
    answer = max(1, round(row.output_tokens * process.output_scale))
    return Row(
        row.at_s / process.speed,
        min(prompt, process.max_input_tokens or prompt),
        min(answer, process.max_output_tokens or answer),
        process.models.get(row.model, "") if process.models else "",
        row.blocks,
        # Every block shrinks alike, so what was shared is shared still.
        max(1, round(row.block_tokens * process.input_scale)) if row.blocks else 0,
    )


def _arrival(scenario: Scenario, index: int, at_s: float, name: str | None, number: int, row: Row | None) -> Arrival:
    rng = _stream(scenario.seed, _CONTENT, *_key(name), number)
    if row is None:
        return _content(scenario, index, at_s, name, rng)
    model = row.model or name or _chosen_model(scenario, rng)
    process = scenario.processes[name]
    assert isinstance(process, Trace)
    turn = Turn(
        row.input_tokens,
        row.output_tokens,
        bool(rng.random() < process.stream_share),
        int(rng.integers(0, 2**63)),
        0.0,
        blocks=row.blocks,
        block_tokens=row.block_tokens,
    )
    return Arrival(index, at_s, model, "trace", 0, (turn,))


def _content(scenario: Scenario, index: int, at_s: float, name: str | None, rng: np.random.Generator) -> Arrival:
    model_name = name if name is not None else _chosen_model(scenario, rng)
    model: MixModel = scenario.models[model_name]
    users = _choose(model.users, [users.weight for users in model.users], rng)
    tools = users.tools if isinstance(users, AgentUsers) else 0
    return Arrival(index, at_s, model_name, users.kind, getattr(users, "system_tokens", 0), _turns(users, rng), tools)


def _chosen_model(scenario: Scenario, rng: np.random.Generator) -> str:
    sharing = scenario.sharing
    return _choose(sharing, [model.weight for model in sharing.values()], rng)


def _turns(users: Users, rng: np.random.Generator) -> tuple[Turn, ...]:
    match users:
        case ChatUsers() | ReasoningUsers():
            return (_turn(users, 0.0, rng),)
        case EmbeddingUsers():
            inputs = tuple(draw(users.input_tokens, rng) for _ in range(draw(users.batch, rng)))
            return (Turn(sum(inputs), 0, False, int(rng.integers(0, 2**63)), 0.0, inputs=inputs),)
        case ConversationUsers():
            return tuple(_turn(users, _think(users, number, rng), rng) for number in range(draw(users.turns, rng)))
        case AgentUsers():
            return tuple(
                turn for number in range(draw(users.turns, rng)) for turn in _with_tool(users, number, rng)
            )


def _with_tool(users: AgentUsers, number: int, rng: np.random.Generator) -> list[Turn]:
    """A question, and where it makes the model call a tool, the request that brings the result."""
    asked = _turn(users, _think(users, number, rng), rng)
    picture = None
    if isinstance(users, ShoppingUsers) and users.image.share:
        shown = number == 0 or rng.random() < users.image.share
        picture = (users.image.width, users.image.height) if shown else None
    calls, tool = rng.random() < users.tool_share, int(rng.integers(0, users.tools))
    wait, result = float(rng.exponential(users.tool_time_s)), _turn(users, 0.0, rng)
    if not calls:
        return [_as(asked, picture=picture)]
    named = toolbox(users.kind)[tool]
    return [
        _as(asked, picture=picture, tool=named, output_tokens=users.call_tokens),
        _as(result, think_s=wait, after_tool=True, prompt_tokens=draw(users.result_tokens, rng)),
    ]


def toolbox(kind: str) -> tuple[str, ...]:
    """Names of the tools that a kind of user's model is offered, in order; `tools` says how they look."""
    if kind == "shopping":
        return ("search_products", "get_product", "check_stock", "add_to_cart", "find_similar", "get_reviews")
    return ("get_order", "track_parcel", "refund_order", "open_ticket", "get_policy", "change_address")


def _as(turn: Turn, **changes: object) -> Turn:
    values = {name: getattr(turn, name) for name in Turn.__slots__}
    return Turn(**(values | changes))  # type: ignore[arg-type]


def _think(users: ConversationUsers | AgentUsers, number: int, rng: np.random.Generator) -> float:
    return float(rng.exponential(users.think_time_s)) if number else 0.0


def _turn(
    users: ChatUsers | ReasoningUsers | ConversationUsers | AgentUsers, think_s: float, rng: np.random.Generator
) -> Turn:
    return Turn(
        prompt_tokens=draw(users.prompt_tokens, rng),
        output_tokens=draw(users.output_tokens, rng),
        stream=bool(rng.random() < users.stream_share),
        text_seed=int(rng.integers(0, 2**63)),
        think_s=think_s,
    )


def _choose(options, weights: list[float], rng: np.random.Generator):
    shares = np.asarray(weights, dtype=float)
    return list(options)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def _key(name: str | None) -> tuple[int, ...]:
    """Part of a random stream's key for a process: none for the shared one."""
    return () if name is None else (zlib.crc32(name.encode()),)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
