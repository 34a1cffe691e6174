"""Whole numbers that a scenario draws: token counts, turns, batch sizes. Pure; randomness is passed in."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from loadtests.strict import Strict

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


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


def draw(distribution: Distribution, rng: np.random.Generator) -> int:
    """One whole number from a distribution of the scenario."""
    match distribution:
        case Constant(value=value):
            return value
        case Uniform(low=low, high=high):
            return int(rng.integers(low, high, endpoint=True))
        case LogNormal(median=median, sigma=sigma, low=low, high=high):
            return int(np.clip(round(rng.lognormal(np.log(median), sigma)), low, high))
