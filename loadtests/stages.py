"""The course of a run: stages one after the other, each a factor on the arrivals' rate. Strict, frozen, pure.

Leading warm-ups and ramps are recorded but not counted; from the first other stage on everything counts, so that the
measured window is one piece. A sweep is no stretch of time but a search over rates, made of runs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loadtests.distributions import NotNegative, Positive
from loadtests.strict import Strict

Name = Annotated[str, Field(min_length=1, max_length=40)]


class Warmup(Strict):
    """Recorded, never counted."""

    kind: Literal["warmup"]
    duration_s: Positive
    factor: Positive = 1.0
    name: Name | None = None


class Ramp(Strict):
    """The rate goes linearly from one factor to another."""

    kind: Literal["ramp"]
    duration_s: Positive
    from_factor: NotNegative = 0.0
    to_factor: Positive = 1.0
    name: Name | None = None


class Hold(Strict):
    """The rate stays."""

    kind: Literal["hold"]
    duration_s: Positive
    factor: Positive = 1.0
    name: Name | None = None


class Spike(Strict):
    """The rate jumps to a multiple and back at its end."""

    kind: Literal["spike"]
    duration_s: Positive
    factor: Annotated[float, Field(gt=1)]
    name: Name | None = None


class Sweep(Strict):
    """A search for the highest rate that meets the objectives; the only stage of its scenario.

    Every step is a run of settle_s (not counted) and step_s at one rate, with prompts of its own so that none is
    cached from a step before. `bisection` begins at low_per_s and doubles up to high_per_s until a rate fails, then
    halves the interval; `grid` takes `steps` rates spaced evenly on a logarithmic scale and stops at nothing.
    """

    kind: Literal["sweep"]
    low_per_s: Positive
    high_per_s: Positive
    search: Literal["bisection", "grid"] = "bisection"
    steps: Annotated[int, Field(ge=2, le=50)] = 8
    settle_s: NotNegative = 5.0
    step_s: Positive = 30.0

    @model_validator(mode="after")
    def _ordered(self) -> Sweep:
        if self.low_per_s >= self.high_per_s:
            raise ValueError(f"low_per_s ({self.low_per_s:g}) is not below high_per_s ({self.high_per_s:g})")
        return self


Stage = Annotated[Warmup | Ramp | Hold | Spike | Sweep, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Span:
    """A stage in time: [start_s, end_s) of the run, the factor at its two ends, and whether it counts."""

    name: str
    kind: str
    start_s: float
    end_s: float
    left: float
    right: float
    measured: bool

    def factor(self, at_s: float) -> float:
        """The factor at a moment inside."""
        share = (at_s - self.start_s) / (self.end_s - self.start_s)
        return self.left + (self.right - self.left) * share


def spans(stages: Sequence[Warmup | Ramp | Hold | Spike]) -> tuple[Span, ...]:
    """The stages in time; names that repeat are numbered."""
    found: list[Span] = []
    at, measured, used = 0.0, False, dict[str, int]()
    for stage in stages:
        measured = measured or stage.kind not in ("warmup", "ramp")
        left, right = (stage.from_factor, stage.to_factor) if isinstance(stage, Ramp) else (stage.factor,) * 2
        name = stage.name or stage.kind
        used[name] = used.get(name, 0) + 1
        name = name if used[name] == 1 else f"{name} {used[name]}"
        counts = measured and stage.kind != "warmup"
        found.append(Span(name, stage.kind, at, at + stage.duration_s, left, right, counts))
        at += stage.duration_s
    return tuple(found)


def span_at(course: Sequence[Span], at_s: float) -> Span:
    """The stage of a moment; the last one for what comes after the end."""
    return next((span for span in course if at_s < span.end_s), course[-1])
