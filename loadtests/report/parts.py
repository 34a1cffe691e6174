"""What every value of report.json is made of: strict frozen parts, and figures with their intervals."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Plain, frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimated(Part):
    """A figure and its 95% confidence interval; an end is None where too few requests tell it."""

    value: float
    low: float | None
    high: float | None
