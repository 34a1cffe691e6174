"""What a load test sends: the scenario file, strict and frozen.

A scenario names a mix of models with weights and, per model, the kinds of users with weights. Everything that
shapes the traffic stands in the file, so that the file and its seed describe a run completely. This module
knows YAML and validation; it draws no random number and opens no socket.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from loadtests.errors import ScenarioError
from loadtests.strict import Strict, parse_strict, read_yaml

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

#: Keys of the request body that the load test sets itself.
RESERVED_BODY_KEYS = frozenset(
    {"model", "messages", "max_tokens", "stream", "stream_options", "ignore_eos", "n"}
)


class Constant(Strict):
    """Always `value`."""

    kind: Literal["constant"]
    value: Count


class Uniform(Strict):
    """Whole numbers from `low` to `high`, both included, equally likely."""

    kind: Literal["uniform"]
    low: Count
    high: Count

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


class LogNormal(Strict):
    """Log-normal with the given median and sigma of the logarithm, cut off at `low` and `high`."""

    kind: Literal["lognormal"]
    median: Positive
    sigma: NotNegative
    low: Count = 1
    high: Count

    @model_validator(mode="after")
    def _ordered(self) -> LogNormal:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low ≤ median ≤ high does not hold: {self.low}, {self.median:g}, {self.high}")
        return self


Distribution = Annotated[Constant | Uniform | LogNormal, Field(discriminator="kind")]


class ChatUsers(Strict):
    """People who ask one question: one request per arrival."""

    kind: Literal["chat"]
    weight: Positive = 1.0
    prompt_tokens: Distribution
    output_tokens: Distribution
    stream_share: Share = 1.0


class ConversationUsers(Strict):
    """People who talk on: every turn sends the shared system prompt and the whole history with the model's
    replies.
    """

    kind: Literal["conversation"]
    weight: Positive = 1.0
    system_tokens: Annotated[int, Field(ge=0)] = 0
    turns: Distribution
    prompt_tokens: Distribution
    output_tokens: Distribution
    think_time_s: NotNegative = 1.0
    """Mean of the exponential pause between a reply and the next turn, seconds."""
    stream_share: Share = 1.0


Users = Annotated[ChatUsers | ConversationUsers, Field(discriminator="kind")]


class Slo(Strict):
    """Objectives of one request, milliseconds."""

    ttft_ms: Positive
    tpot_ms: Positive


class MixModel(Strict):
    """One model of the mix. `weight` is its share of the arrivals, not of the tokens."""

    weight: Positive = 1.0
    # Strict validation would refuse YAML's list for a tuple; its members stay strict.
    users: Annotated[tuple[Users, ...], Field(min_length=1, strict=False)]
    extra_body: dict[str, Any] = {}
    slo: Slo | None = None
    """Overrides the objectives of the fleet (context.json)."""

    @field_validator("extra_body")
    @classmethod
    def _not_reserved(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED_BODY_KEYS & body.keys()):
            raise ValueError(f"extra_body may not set {', '.join(taken)}: the load test sets it itself")
        return body


class Poisson(Strict):
    """Independent arrivals: exponential gaps with mean 1 / rate_per_s."""

    process: Literal["poisson"]
    rate_per_s: Positive


class Scenario(Strict):
    """One load test.

    duration_s: arrivals happen in [0, duration_s); the first warmup_s of it are recorded but not counted.
    exact_output: ask for exactly max_tokens tokens (`ignore_eos`), so that output lengths follow the
    scenario.
    words_per_token: how many English words stand for one token when prompts are written.
    slo_attainment: share of requests that must meet each objective for the verdict "pass".
    """

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    duration_s: Positive
    warmup_s: NotNegative = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    arrivals: Poisson
    request_timeout_s: Positive = 60.0
    exact_output: bool = False
    words_per_token: Positive = 0.75
    slo_attainment: Annotated[float, Field(gt=0, le=1)] = 0.9
    models: Annotated[dict[str, MixModel], Field(min_length=1)]

    @model_validator(mode="after")
    def _measures_something(self) -> Scenario:
        if self.warmup_s >= self.duration_s:
            raise ValueError(
                f"warmup_s ({self.warmup_s:g}) leaves nothing of duration_s ({self.duration_s:g})"
            )
        return self


class Overrides(Strict):
    """What the command line may change; None leaves the scenario's own value."""

    duration_s: Positive | None = None
    rate_per_s: Positive | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


def load_scenario(path: Path) -> Scenario:
    """Read a scenario from YAML (or JSON). Raises ScenarioError with file, line, key and the nearest right
    name.
    """
    document = read_yaml(path)
    return parse_strict(Scenario, document)


def with_overrides(scenario: Scenario, overrides: Overrides) -> Scenario:
    """The scenario as it will run. The warm-up takes at most half of another duration."""
    document = json.loads(scenario.model_dump_json())
    if overrides.duration_s is not None:
        document["warmup_s"] = min(scenario.warmup_s, overrides.duration_s / 2)
        document["duration_s"] = overrides.duration_s
    if overrides.rate_per_s is not None:
        document["arrivals"]["rate_per_s"] = overrides.rate_per_s
    if overrides.seed is not None:
        document["seed"] = overrides.seed
    return scenario_from(document)


def scenario_from(document: Mapping[str, Any]) -> Scenario:
    """A scenario from plain data, as run.json keeps it. Raises ScenarioError."""
    try:
        return Scenario.model_validate(document)
    except ValueError as error:
        raise ScenarioError(str(error)) from error
