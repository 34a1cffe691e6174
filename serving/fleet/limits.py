"""Limits of a tenant, a key or a model: as the fleet file says them, and as single counters that a request counts on.

What a counter holds and whether a request fits is `quotas`' matter; how much a request may use is `demand`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from pydantic import Field, model_validator

from serving.fleet.config import Strict
from serving.fleet.costspecs import Usd
from serving.fleet.money import nanousd
from serving.fleet.quotas import NO_END, Kind

Unit = Literal["requests", "tokens", "prompt", "completion", "seats", "usd"]
Period = Literal["day", "month"]
_RATES: tuple[tuple[str, Unit], ...] = (
    ("requests_per_minute", "requests"), ("tokens_per_minute", "tokens"), ("prompt_tokens_per_minute", "prompt"),
    ("completion_tokens_per_minute", "completion"))


class BudgetSpec(Strict):
    """An amount of money for a day or a month (UTC). At the soft mark answers say so, at the hard mark they end."""

    soft_usd: Usd | None = Field(None, description="From here on answers carry x-flotilla-budget, USD.")
    hard_usd: Usd | None = Field(None, description="No request begins beyond it, and a stream ends that reaches it, "
                                                   "USD.")

    @model_validator(mode="after")
    def _marks(self) -> BudgetSpec:
        if self.soft_usd is None and self.hard_usd is None:
            raise ValueError("a budget needs soft_usd, hard_usd or both")
        if self.soft_usd is not None and self.hard_usd is not None and self.soft_usd > self.hard_usd:
            raise ValueError(f"soft_usd ({self.soft_usd}) is above hard_usd ({self.hard_usd})")
        return self


class LimitsSpec(Strict):
    """How much may be used. What is left out is not limited."""

    requests_per_minute: int | None = Field(None, ge=1, description="Requests that begin within 60 s.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Prompt and completion tokens within 60 s.")
    prompt_tokens_per_minute: int | None = Field(None, ge=1, description="Prompt tokens within 60 s.")
    completion_tokens_per_minute: int | None = Field(None, ge=1, description="Completion tokens within 60 s.")
    concurrent_requests: int | None = Field(None, ge=1, description="Requests under way at once.")
    max_output_tokens: int | None = Field(None, ge=1, description="Completion tokens of one answer; more are cut off, "
                                                                  "as by the caller's own max_tokens.")
    budget_per_day: BudgetSpec | None = Field(None, description="Money for each day (UTC).")
    budget_per_month: BudgetSpec | None = Field(None, description="Money for each month (UTC).")

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return any(getattr(self, name) is not None for name in type(self).model_fields)


NO_LIMITS = LimitsSpec()


@dataclass(frozen=True)
class Limit:
    """One counter with its limit. `whose`: in words, for messages; `most`, `soft`: in units, nano-USD for money.

    `name`: of the counter; for money, that of each period is `counter`.
    """

    name: str
    whose: str
    unit: Unit
    most: int
    kind: Kind
    period: Period | None = None
    soft: int | None = None
    of: tuple[tuple[str, str], ...] = ()  # whose requests count: of this tenant, key, model

    @property
    def hard(self) -> bool:
        """Whether requests are refused at it."""
        return self.most < NO_END

    def counter(self, now: float) -> str:
        """The counter's name at a moment, Unix seconds."""
        return f"{self.name}/{stamp(self.period, now)}" if self.period else self.name


def stamp(period: Period, now: float) -> str:
    """The day (2026-11-25) or month (2026-11) of a moment, UTC."""
    return _stamp(period, int(now // 86_400))


@lru_cache(64)
def _stamp(period: Period, days: int) -> str:
    return datetime.fromtimestamp(days * 86_400, UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def bounds(period: Period, now: float) -> tuple[float, float]:
    """When the day or month of a moment begins, and when the next one does. Unix seconds, UTC."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    first = day.replace(day=1)
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


def limits_of(spec: LimitsSpec, scope: str, whose: str, of: tuple[tuple[str, str], ...] = ()) -> tuple[Limit, ...]:
    """The counters of one spec. `scope`: what their names begin with. Most output tokens has no counter."""
    found = [Limit(f"{scope}/{unit}", whose, unit, most, "rate") for field, unit in _RATES
             if (most := getattr(spec, field)) is not None]
    if spec.concurrent_requests is not None:
        found.append(Limit(f"{scope}/seats", whose, "seats", spec.concurrent_requests, "seats"))
    periods: tuple[tuple[Period, BudgetSpec | None], ...] = (
        ("day", spec.budget_per_day), ("month", spec.budget_per_month))
    for period, budget in periods:
        if budget is not None:
            hard = NO_END if budget.hard_usd is None else nanousd(budget.hard_usd)
            soft = None if budget.soft_usd is None else nanousd(budget.soft_usd)
            found.append(Limit(f"{scope}/usd/{period}", whose, "usd", hard, "money", period, soft, of))
    return tuple(found)


@dataclass(frozen=True)
class Scoped:
    """All that limits one key's requests to one model, money first."""

    limits: tuple[Limit, ...] = ()
    max_output_tokens: int | None = None

    @classmethod
    def of(cls, tenant: str, key_id: str, model: str, specs: Mapping[str, LimitsSpec | None]) -> Scoped:
        """`specs`: of the `tenant`, of the `key`, of the `model` for all tenants together, and of the tenant on this
        model (`tenant_model`); each may be missing."""
        tenants, models = ("tenant", tenant), ("model", model)
        names: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
            "tenant": (f"tenant/{tenant}", f"the tenant {tenant!r}", (tenants,)),
            "key": (f"key/{key_id}", "this key", (("key", key_id),)),
            "model": (f"model/{model}", f"the model {model!r}", (models,)),
            "tenant_model": (f"tenant/{tenant}/model/{model}", f"the tenant {tenant!r} on {model!r}",
                             (tenants, models))}
        there = {name: spec for name, spec in specs.items() if spec is not None}
        found = [limit for name, spec in there.items() for limit in limits_of(spec, *names[name])]
        outputs = [spec.max_output_tokens for spec in there.values() if spec.max_output_tokens is not None]
        return cls(tuple(sorted(found, key=lambda limit: limit.kind != "money")), min(outputs, default=None))

    def __bool__(self) -> bool:
        return bool(self.limits) or self.max_output_tokens is not None


def parsed(pairs: Iterable[str]) -> LimitsSpec:
    """Limits from `name=value` texts, as command lines have them. Raises: ValueError, pydantic's ValidationError."""
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: write NAME=NUMBER, for example requests_per_minute=60")
        number: object = int(value) if value.isdigit() else float(value)
        if name.startswith("budget_per_"):  # budget_per_day.hard_usd=5
            budget, _, mark = name.partition(".")
            inner = values.setdefault(budget, {})
            assert isinstance(inner, dict)
            inner[mark or "hard_usd"] = number
        else:
            values[name] = number
    return LimitsSpec.model_validate(values)
