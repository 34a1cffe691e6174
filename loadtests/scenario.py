"""What a load test sends: the scenario file, strict and frozen.

A scenario names a mix of models with weights or arrivals of their own and, per model, the kinds of users with
weights. Everything that shapes the traffic stands in the file, so that the file and its seed describe a run
completely. This module knows YAML and validation; it draws no random number and opens no socket.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from loadtests.distributions import Constant, Count, Distribution, LogNormal, NotNegative, Positive, Share, Uniform
from loadtests.errors import ScenarioError
from loadtests.pacing import Closed, Pacing, Piecewise, Poisson, Trace, mean_of_points
from loadtests.people import (
    AgentUsers,
    ChatUsers,
    ConversationUsers,
    EmbeddingUsers,
    ReasoningUsers,
    ShoppingUsers,
    Slo,
    Stop,
    Users,
)
from loadtests.stages import Span, Stage, Sweep, spans
from loadtests.strict import Strict, parse_strict, read_yaml

__all__ = [
    "AgentUsers", "ChatUsers", "Closed", "Constant", "ConversationUsers", "Count", "Distribution", "EmbeddingUsers",
    "LogNormal", "MixModel", "Overrides", "Pacing", "Poisson", "ReasoningUsers", "Scenario", "Share", "ShoppingUsers",
    "Slo", "Stop", "Sweep", "Trace", "Uniform", "Users", "json_schema", "load_scenario", "scenario_from",
    "with_overrides",
]

#: Keys of the request body that the load test sets itself.
RESERVED_BODY_KEYS = frozenset(
    {"model", "messages", "max_tokens", "stream", "stream_options", "ignore_eos", "n", "tools", "tool_choice", "input"}
)


class MixModel(Strict):
    """One model of the mix. `weight` is its share of the shared arrivals, not of the tokens; with `arrivals` of its
    own it has no part in those.
    """

    weight: Positive = 1.0
    arrivals: Pacing | None = None
    # Strict validation would refuse YAML's list for a tuple; its members stay strict.
    users: Annotated[tuple[Users, ...], Field(strict=False)] = ()
    extra_body: dict[str, Any] = {}
    slo: Slo | None = None
    """Overrides the objectives of the fleet (context.json)."""

    @field_validator("extra_body")
    @classmethod
    def _not_reserved(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED_BODY_KEYS & body.keys()):
            raise ValueError(f"extra_body may not set {', '.join(taken)}: the load test sets it itself")
        return body


class Scenario(Strict):
    """One load test.

    duration_s: arrivals happen in [0, duration_s); the first warmup_s of it are recorded but not counted. With
    `stages` both follow from them and are left out.
    arrivals: of all models that have none of their own.
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
    arrivals: Pacing | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False)] = ()
    stop: Stop | None = None
    request_timeout_s: Positive = 60.0
    exact_output: bool = False
    words_per_token: Positive = 0.75
    slo_attainment: Annotated[float, Field(gt=0, le=1)] = 0.9
    models: Annotated[dict[str, MixModel], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _times_of_stages(cls, value: Any) -> Any:
        if isinstance(value, dict) and "duration_s" not in value and (times := _times(value.get("stages"))):
            return value | {"duration_s": times[0], "warmup_s": times[1]}
        return value

    @model_validator(mode="after")
    def _measures_something(self) -> Scenario:
        if self.warmup_s >= self.duration_s:
            raise ValueError(
                f"warmup_s ({self.warmup_s:g}) leaves nothing of duration_s ({self.duration_s:g})"
            )
        return self

    @model_validator(mode="after")
    def _course(self) -> Scenario:
        if not self.stages:
            return self
        if self.sweep is not None:
            if len(self.stages) > 1:
                raise ValueError("stages: a sweep stands alone; its steps warm up by settle_s")
            return self
        course = spans(self.stages)  # type: ignore[arg-type]
        measured = [span.measured for span in course]
        if not any(measured):
            raise ValueError("stages: nothing is measured; add a hold or a spike")
        if not all(measured[measured.index(True):]):
            raise ValueError("stages: a warmup can only stand at the beginning")
        times = _times([stage.model_dump() for stage in self.stages])
        if times and (abs(times[0] - self.duration_s) > 1e-6 or abs(times[1] - self.warmup_s) > 1e-6):
            raise ValueError("duration_s and warmup_s follow from the stages: leave them out")
        return self

    @model_validator(mode="after")
    def _everybody_comes(self) -> Scenario:
        for name, model in self.models.items():
            process = model.arrivals or self.arrivals
            if process is None:
                raise ValueError(f"models.{name} has no arrivals: give it some, or the scenario")
            if not model.users and not isinstance(process, Trace):
                raise ValueError(f"models.{name}.users is empty")
        if self.arrivals is not None and not self.sharing:
            raise ValueError("arrivals are nobody's: every model has its own")
        for process in self.processes.values():
            self._fits(process)
        return self

    def _fits(self, process: Pacing) -> None:
        if isinstance(process, Trace):
            if lost := sorted(set(process.models.values()) - set(self.models)):
                raise ValueError(f"the trace's models name {', '.join(lost)}, which the scenario does not have")
            if any(span.left != 1 or span.right != 1 for span in self.course):
                raise ValueError("a trace has its own course: its stages may only have the factor 1")
        if self.sweep is not None and isinstance(process, Trace | Closed):
            raise ValueError(f"a sweep needs a rate to change, which {process.process!r} arrivals do not have")

    @property
    def sweep(self) -> Sweep | None:
        """The search for the highest rate, if the scenario is one."""
        return next((stage for stage in self.stages if isinstance(stage, Sweep)), None)

    @property
    def course(self) -> tuple[Span, ...]:
        """The stages in time; a scenario without any warms up and holds."""
        if self.stages and self.sweep is None:
            return spans(self.stages)  # type: ignore[arg-type]
        end = self.duration_s
        hold = Span("hold", "hold", self.warmup_s, end, 1.0, 1.0, True)
        return (Span("warmup", "warmup", 0.0, self.warmup_s, 1.0, 1.0, False), hold) if self.warmup_s else (hold,)

    @property
    def sharing(self) -> dict[str, MixModel]:
        """The models that share the scenario's arrivals."""
        return {name: model for name, model in self.models.items() if model.arrivals is None}

    @property
    def processes(self) -> dict[str | None, Pacing]:
        """Every arrival process by its model; None is the shared one."""
        found: dict[str | None, Pacing] = {None: self.arrivals} if self.arrivals is not None else {}
        return found | {name: model.arrivals for name, model in self.models.items() if model.arrivals is not None}


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


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file, for editors. duration_s is not required in it: stages may give it."""
    schema = Scenario.model_json_schema()
    schema["required"] = [name for name in schema["required"] if name != "duration_s"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Flotilla load-test scenario"}


def with_overrides(scenario: Scenario, overrides: Overrides) -> Scenario:
    """The scenario as it will run. Raises ScenarioError where it has nothing of the kind to change.

    Stages keep their shares of another duration; without stages the warm-up takes at most half of it.
    """
    document = json.loads(scenario.model_dump_json())
    if overrides.duration_s is not None:
        _last(document, scenario, overrides.duration_s)
    if overrides.rate_per_s is not None:
        if scenario.sweep is not None:
            raise ScenarioError(f"{scenario.name} is a sweep: its rates are low_per_s to high_per_s")
        factor = overrides.rate_per_s / nominal_rate(scenario)
        for name, process in scenario.processes.items():
            place = document if name is None else document["models"][name]
            place["arrivals"] = _faster(process, factor)
    if overrides.seed is not None:
        document["seed"] = overrides.seed
    return scenario_from(document)


def nominal_rate(scenario: Scenario) -> float:
    """Mean arrivals per second that the processes ask for, before the stages' factors. Raises ScenarioError for
    those without a rate of their own."""
    return sum(_mean_rate(process, scenario) for process in scenario.processes.values())


def at_rate(scenario: Scenario, sweep: Sweep, rate_per_s: float, step: int) -> Scenario:
    """One step of a sweep: the mix at this rate, with a seed of its own."""
    flat = json.loads(scenario.model_dump_json()) | {
        "stages": [], "seed": scenario.seed + step,
        "warmup_s": sweep.settle_s, "duration_s": sweep.settle_s + sweep.step_s
    }
    return with_overrides(scenario_from(flat), Overrides(rate_per_s=rate_per_s))


def scenario_from(document: Mapping[str, Any]) -> Scenario:
    """A scenario from plain data, as run.json keeps it. Raises ScenarioError."""
    try:
        return Scenario.model_validate(document)
    except ValueError as error:
        raise ScenarioError(str(error)) from error


def _last(document: dict[str, Any], scenario: Scenario, duration_s: float) -> None:
    if scenario.sweep is not None:
        step = {"settle_s": min(scenario.sweep.settle_s, duration_s / 2), "step_s": duration_s}
        document["stages"][0] |= step
        return
    factor = duration_s / scenario.duration_s
    if scenario.stages:
        for stage in document["stages"]:
            stage["duration_s"] *= factor
        # They follow from the stages, to the last bit.
        del document["duration_s"], document["warmup_s"]
        return
    document["warmup_s"] = min(scenario.warmup_s, duration_s / 2)
    document["duration_s"] = duration_s


def _faster(process: Pacing, factor: float) -> dict[str, Any]:
    document = process.model_dump(mode="json")
    if isinstance(process, Piecewise):
        for point in document["points"]:
            point["rate_per_s"] *= factor
    else:
        document["rate_per_s"] *= factor
    return document


def _mean_rate(process: Pacing, scenario: Scenario) -> float:
    if isinstance(process, Trace):
        raise ScenarioError("a trace has no rate to change: set its speed in the scenario")
    if isinstance(process, Closed):
        raise ScenarioError("a closed loop has no rate to change: set its users in the scenario")
    if isinstance(process, Piecewise):
        return mean_of_points(process, scenario.duration_s)
    return process.rate_per_s


def _times(stages: Any) -> tuple[float, float] | None:
    """Duration and warm-up of stages as they stand in a file; None where they are malformed, which validation of
    the stages themselves will tell."""
    try:
        if len(stages) == 1 and stages[0]["kind"] == "sweep":
            settle = float(stages[0].get("settle_s", Sweep.model_fields["settle_s"].default))
            return settle + float(stages[0].get("step_s", Sweep.model_fields["step_s"].default)), settle
        lead = 0.0
        for stage in stages:
            if stage["kind"] not in ("warmup", "ramp"):
                break
            lead += stage["duration_s"]
        return float(sum(stage["duration_s"] for stage in stages)), float(lead)
    except (TypeError, KeyError, IndexError, ValueError):
        return None
