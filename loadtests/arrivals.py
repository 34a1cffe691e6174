"""The open-loop schedule: who arrives when and what they will ask, computed once from the seed.

A pure function of the scenario: no clock, no I/O. Arrival times come from one random stream and every
arrival's content from a stream of its own, so that another rate or duration moves the arrivals in time but
leaves the n-th one what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadtests.scenario import (
    ChatUsers,
    Constant,
    ConversationUsers,
    Distribution,
    LogNormal,
    MixModel,
    Scenario,
    Uniform,
    Users,
)

_TIMES, _CONTENT = 0, 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to come. `think_s` is the pause after the previous reply (0 for the first turn)."""

    prompt_tokens: int
    output_tokens: int
    stream: bool
    text_seed: int
    think_s: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One user who comes at `at_s` seconds after the start and brings one or more turns."""

    index: int
    at_s: float
    model: str
    user_kind: str
    system_tokens: int
    turns: tuple[Turn, ...]


def schedule(scenario: Scenario) -> tuple[Arrival, ...]:
    """All arrivals of a run in order of time; equal for equal scenarios (the seed is part of it)."""
    times = poisson_times(scenario.arrivals.rate_per_s, scenario.duration_s, _stream(scenario.seed, _TIMES))
    return tuple(
        _arrival(scenario, index, float(at_s), _stream(scenario.seed, _CONTENT, index))
        for index, at_s in enumerate(times)
    )


def poisson_times(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Times in [0, duration_s), seconds, ascending; gaps are exponential with mean 1 / rate_per_s."""
    times: list[np.ndarray] = []
    last = 0.0
    while last < duration_s:
        # Blocks of a fixed size: a longer run begins with the very arrivals of a shorter one.
        block = last + np.cumsum(rng.exponential(1.0 / rate_per_s, size=256))
        times.append(block)
        last = float(block[-1])
    joined = np.concatenate(times)
    return joined[joined < duration_s]


def draw(distribution: Distribution, rng: np.random.Generator) -> int:
    """One whole number from a distribution of the scenario."""
    match distribution:
        case Constant(value=value):
            return value
        case Uniform(low=low, high=high):
            return int(rng.integers(low, high, endpoint=True))
        case LogNormal(median=median, sigma=sigma, low=low, high=high):
            return int(np.clip(round(rng.lognormal(np.log(median), sigma)), low, high))


def _arrival(scenario: Scenario, index: int, at_s: float, rng: np.random.Generator) -> Arrival:
    name = _choose(scenario.models, [model.weight for model in scenario.models.values()], rng)
    model: MixModel = scenario.models[name]
    users = _choose(model.users, [users.weight for users in model.users], rng)
    return Arrival(index, at_s, name, users.kind, _system_tokens(users), _turns(users, rng))


def _system_tokens(users: Users) -> int:
    return users.system_tokens if isinstance(users, ConversationUsers) else 0


def _turns(users: Users, rng: np.random.Generator) -> tuple[Turn, ...]:
    if isinstance(users, ChatUsers):
        return (_turn(users, 0.0, rng),)
    count = draw(users.turns, rng)
    return tuple(
        _turn(users, float(rng.exponential(users.think_time_s)) if number else 0.0, rng)
        for number in range(count)
    )


def _turn(users: Users, think_s: float, rng: np.random.Generator) -> Turn:
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


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
