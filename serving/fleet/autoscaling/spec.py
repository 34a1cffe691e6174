"""The parts of the fleet file about how many replicas a model has: who decides, within which bounds, at what price."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from serving.fleet.config import Strict
from serving.fleet.costspecs import UsdPerHour
from serving.fleet.money import nanousd, usd

RULE = ("margin", "fill", "hold", "growth", "remember_s", "follow", "crowd")  # parameters of `slo.SloRule`
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Hours(Strict):
    """A least number of replicas at certain hours, UTC."""

    least: int = Field(ge=1, description="Replicas that then always run.")
    start: Clock = Field("00:00", description="From this time on, UTC, as 08:00.")
    end: Clock = Field("00:00", description="Until this time, UTC; the next day's where it is not after start.")
    days: tuple[Day, ...] = Field(_DAYS, description="Days on which it begins.")

    @field_validator("days", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    def holds(self, now: float) -> bool:
        """Whether it does at a moment, Unix seconds."""
        minute, day = int(now // 60) % 1_440, (int(now // 86_400) + 3) % 7  # 1 January 1970 was a Thursday
        start, end = _minutes(self.start), _minutes(self.end)
        if start < end:
            return _DAYS[day] in self.days and start <= minute < end
        return (_DAYS[day] in self.days and minute >= start) or (_DAYS[day - 1] in self.days and minute < end)


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


class ScalingSpec(Strict):
    """How a model's replicas follow its load, between replicas.min and replicas.max."""

    policy: Literal["fixed", "ours"] = Field("fixed", description="fixed: replicas.min, or where that is 0 one while "
                                             "someone asks for the model. ours: as many as the slo needs for the load "
                                             "that is expected.")
    margin: float = Field(2.0, ge=0, le=10, description="Standard deviations of chance that replicas are kept for.")
    fill: float = Field(0.9, gt=0, le=1, description="Share of a replica's modelled capacity that is planned with.")
    hold: float = Field(1.0, ge=0, le=100, description="Fewer replicas only after fewer were enough for so many times "
                                                       "the time that a start takes.")
    growth: float = Field(0.5, ge=0, le=2, description="Share of a rise in arrivals that is carried on until a new "
                                                       "replica could be ready.")
    remember_s: float = Field(0.0, ge=0, le=86_400, description="Seconds of past arrivals that replicas are kept for, "
                              "but for the share of requests that may be late; 0: those of now only.")
    follow: float = Field(1.0, ge=0, le=1, description="With remember_s: share of what is beyond the remembered that "
                                                       "is followed at once.")
    crowd: float = Field(0.0, ge=0, le=2, description="Share of the requests at once that count as demand of their "
                                                      "own, where that is more than arrivals say; 0: none.")
    spares: int = Field(0, ge=0, description="Warm replicas beyond what is needed.")
    zero_after_s: float = Field(300.0, gt=0, description="With replicas.min 0: seconds without any request after which "
                                                         "the model goes to zero.")
    cold_wait_s: float = Field(300.0, gt=0, description="With replicas.min 0: longest that a request waits for a first "
                                                        "replica, seconds; then the answer is 503.")
    schedule: tuple[Hours, ...] = Field((), description="Least numbers at certain hours.")
    max_usd_per_hour: UsdPerHour | None = Field(None, description="Most that the model's replicas may cost together, "
                                                                  "USD per hour.")
    priority: int = Field(0, description="When the fleet's max_usd_per_hour binds, models of higher priority get "
                                         "replicas first.")
    value_usd_per_hour: float = Field(0.0, ge=0, description="Among equal priorities: what an hour of a replica is "
                                                             "worth to you; the highest first.")

    @field_validator("schedule", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @property
    def rule(self) -> dict[str, float]:
        """What of it our rule itself takes, by the names of its parameters."""
        return {name: getattr(self, name) for name in RULE}

    def troubles(self, least: int, most: int, price: int | None) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What cannot be, with the numbers: (where in this section, what). `price`: of a replica, nano-USD per hour;
        None: it depends on the node."""
        if self.spares and self.spares >= most:
            yield ("spares",), (f"{self.spares} warm spares leave no replica to be needed: replicas.max is {most}; it "
                                f"must be at least {self.spares + 1}")
        for index, hours in enumerate(self.schedule):
            if hours.least > most:
                yield ("schedule", index, "least"), (f"{hours.least} is above replicas.max ({most}); raise that, or "
                                                     "ask for less")
        if price is None or self.max_usd_per_hour is None:
            return
        floor = max([1, least, *(h.least for h in self.schedule)])
        if (cap := nanousd(self.max_usd_per_hour)) < floor * price:
            yield ("max_usd_per_hour",), (f"{usd(cap):g} USD per hour is below the price of the least: {floor} x "
                                          f"{usd(price):g} = {usd(floor * price):g}; raise it, or lower replicas.min "
                                          "and schedule")


class FleetScalingSpec(Strict):
    """What all models' replicas together may cost."""

    max_usd_per_hour: UsdPerHour | None = Field(None, description="Most that all replicas may cost together, USD per "
                                                "hour. Above it models get replicas by scaling.priority, then by "
                                                "scaling.value_usd_per_hour; replicas.min is always kept.")

    def trouble(self, least: dict[str, tuple[int, int]]) -> str:
        """Why the cap cannot hold, with the numbers; empty: it can. `least`: by model, replicas.min and its price."""
        if self.max_usd_per_hour is None:
            return ""
        cap, floor = nanousd(self.max_usd_per_hour), sum(n * price for n, price in least.values())
        if cap >= floor:
            return ""
        parts = ", ".join(f"{name} {n} x {usd(price):g}" for name, (n, price) in least.items() if n)
        return (f"{usd(cap):g} USD per hour is below the price of the replicas that always run, {usd(floor):g} "
                f"({parts}); raise it, or lower a replicas.min")
