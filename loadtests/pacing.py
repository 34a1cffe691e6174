"""When users come: the arrival processes that a scenario may name, strict and frozen.

An open-loop process fixes every arrival before the run. A closed loop has a number of users who each wait for
their answer; its rate follows from the target, so it hides a slow one, and the report says which of the two a
run was. This module draws nothing; `timing` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from loadtests.distributions import Count, NotNegative, Positive, Share
from loadtests.strict import Strict

TraceFormat = Literal["azure", "mooncake", "burstgpt", "servegen", "jsonl"]
Variation = Annotated[float, Field(ge=0, le=20)]


class Even(Strict):
    """Arrivals 1 / rate_per_s apart."""

    process: Literal["constant"]
    rate_per_s: Positive


class Poisson(Strict):
    """Independent arrivals: exponential gaps with mean 1 / rate_per_s."""

    process: Literal["poisson"]
    rate_per_s: Positive


class Gamma(Strict):
    """Gamma-distributed gaps. cv: their coefficient of variation; 0 is even, 1 is Poisson, above 1 bursts."""

    process: Literal["gamma"]
    rate_per_s: Positive
    cv: Variation


class Diurnal(Strict):
    """A day: rate_per_s · (1 + amplitude · cos(2π (t − peak_s) / period_s)); rate_per_s is the mean."""

    process: Literal["diurnal"]
    rate_per_s: Positive
    amplitude: Share
    period_s: Positive = 86_400.0
    peak_s: NotNegative = 0.0
    cv: Variation = 1.0


class Point(Strict):
    """The rate at one moment of the run."""

    at_s: NotNegative
    rate_per_s: NotNegative


class Piecewise(Strict):
    """Rates at given moments, linear between them, constant before the first and after the last."""

    process: Literal["piecewise"]
    points: Annotated[tuple[Point, ...], Field(min_length=1, strict=False)]
    cv: Variation = 1.0

    @model_validator(mode="after")
    def _ascending(self) -> Piecewise:
        moments = [point.at_s for point in self.points]
        if sorted(moments) != moments:
            raise ValueError("points are not in order of at_s")
        if not any(point.rate_per_s for point in self.points):
            raise ValueError("every point has the rate 0")
        return self


class Closed(Strict):
    """`users` people, each of whom sends the next request `think_time_s` (mean, exponential) after an answer."""

    process: Literal["closed"]
    users: Count
    think_time_s: NotNegative = 0.0


class Trace(Strict):
    """Requests that were really made, replayed.

    file: a file, for ServeGen a folder of its chunks; relative to the scenario's file, or a sample's name in
    loadtests/data. speed: 2 replays twice as fast. input_scale, output_scale: factors on the tokens, for models
    that are smaller than those of the trace; max_input_tokens and max_output_tokens cut off what is longer.
    start_s: second of the trace at which the replay begins. models: which name in the trace becomes which model
    of the scenario, rows of others are left out; without it every row goes to a model by weight.
    """

    process: Literal["trace"]
    file: Annotated[str, Field(min_length=1)]
    format: TraceFormat
    speed: Positive = 1.0
    input_scale: Positive = 1.0
    output_scale: Positive = 1.0
    max_input_tokens: Count | None = None
    max_output_tokens: Count | None = None
    start_s: NotNegative = 0.0
    stream_share: Share = 1.0
    models: dict[str, str] = {}

    @field_validator("models")
    @classmethod
    def _named(cls, models: dict[str, str]) -> dict[str, str]:
        if any(not name for pair in models.items() for name in pair):
            raise ValueError("a name is empty")
        return models

    def path(self, beside: Path) -> Path:
        """Where the trace is, seen from a scenario in the folder `beside`."""
        for base in (beside, Path(__file__).resolve().parent / "data"):
            if (base / self.file).exists():
                return (base / self.file).resolve()
        return beside / self.file


Pacing = Annotated[Even | Poisson | Gamma | Diurnal | Piecewise | Closed | Trace, Field(discriminator="process")]


def mean_of_points(process: Piecewise, duration_s: float) -> float:
    """Mean rate over [0, duration_s]."""
    edges = [0.0, *(p.at_s for p in process.points if 0 < p.at_s < duration_s), duration_s]
    values = [rate_at(process, at) for at in edges]
    areas = ((b - a) * (v + w) / 2 for a, b, v, w in zip(edges, edges[1:], values, values[1:], strict=False))
    return sum(areas) / duration_s


def rate_at(process: Piecewise, at_s: float) -> float:
    """The rate at a moment: linear between points, constant outside."""
    points = process.points
    if at_s <= points[0].at_s:
        return points[0].rate_per_s
    for before, after in zip(points, points[1:], strict=False):
        if at_s <= after.at_s and after.at_s > before.at_s:
            share = (at_s - before.at_s) / (after.at_s - before.at_s)
            return before.rate_per_s + (after.rate_per_s - before.rate_per_s) * share
    return points[-1].rate_per_s
