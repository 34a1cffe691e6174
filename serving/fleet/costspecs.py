"""Parts of the fleet file about money: who pays for idle time, what the rest of the machine costs, how the ledger copes
without its database, and which APIs the traffic is compared with."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from serving.fleet.config import Strict
from serving.fleet.money import nanousd

Role = Literal["same_model_hosted", "cheapest_proprietary", "frontier"]
ROLES: tuple[Role, ...] = ("same_model_hosted", "cheapest_proprietary", "frontier")
OverheadRole = Literal["gateway", "head", "storage"]


def _exact(unit: str) -> BeforeValidator:
    """YAML gives floats; their shortest text form is what the author wrote, so that is what counts."""

    def convert(value: object) -> object:
        if isinstance(value, Decimal):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Decimal(str(value))
        raise ValueError(f"must be a number of {unit}; found {value!r}")

    return BeforeValidator(convert)


def _not_free(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError(f"must be above 0, or every cost would be 0; found {value}. For a machine that costs you "
                         "nothing give a tiny price such as 0.000001, and say so in price_source")
    return value


_AS_NUMBER = PlainSerializer(float, return_type=float, when_used="json")
UsdPerHour = Annotated[Decimal, _exact("US dollars"), Field(le=10_000, decimal_places=9), AfterValidator(_not_free),
                       _AS_NUMBER, WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 10_000})]
UsdPerHourOrNothing = Annotated[Decimal, _exact("US dollars"), Field(ge=0, le=10_000, decimal_places=9), _AS_NUMBER,
                                WithJsonSchema({"type": "number", "minimum": 0, "maximum": 10_000})]
Usd = Annotated[Decimal, _exact("US dollars"), Field(gt=0, le=1_000_000, decimal_places=9), _AS_NUMBER,
                WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000})]
Ratio = Annotated[Decimal, _exact("tokens there per token here"), Field(gt=0, le=100), _AS_NUMBER,
                  WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100})]


class OverheadSpec(Strict):
    """What the fleet costs beside its replicas. 0: not counted, so that the bill is smaller than the true one."""

    gateway_usd_per_hour: UsdPerHourOrNothing = Field(
        Decimal(0), json_schema_extra={"default": 0}, description="Price of one gateway process for an hour, USD.")
    head_usd_per_hour: UsdPerHourOrNothing = Field(
        Decimal(0), json_schema_extra={"default": 0}, description="Price of Ray's head node for an hour, USD.")
    storage_usd_per_hour: UsdPerHourOrNothing = Field(
        Decimal(0), json_schema_extra={"default": 0},
        description="Price of the ledger's database and of weights on disk for an hour, USD.")

    def nanousd_per_hour(self, role: OverheadRole) -> int:
        """The price of one such source, nano-USD per hour."""
        return nanousd(getattr(self, f"{role}_usd_per_hour"))


class CostSpec(Strict):
    """How costs that belong to no single request are allocated."""

    idle: Literal["pro_rata", "unallocated", "owner"] = Field(
        "pro_rata", description="Who is charged with idle time and cold starts: requests in proportion to their own "
        "work, no one, or the tenant that is the model's owner.")
    max_loading: float = Field(10.0, ge=0, description="With pro_rata: a request is charged at most this many times "
                                                       "its own work for idle time; the rest stays unallocated.")
    window_h: float = Field(24.0, gt=0, description="With pro_rata: for how long the rate remembers idle time and "
                                                    "work, hours.")
    overhead: OverheadSpec = Field(default_factory=OverheadSpec)


class LedgerSpec(Strict):
    """What happens while the ledger's database is away."""

    spool_mib: float = Field(256.0, gt=0, description="Most disk that each process may fill with rows that wait for "
                                                      "the database, MiB.")
    when_full: Literal["refuse", "serve_unmetered"] = Field(
        "refuse", description="What becomes of requests once the spool is full: they are refused with 503, or served "
        "without a row and counted.")

    @property
    def spool_bytes(self) -> int:
        """Most bytes on disk."""
        return int(self.spool_mib * 1024 * 1024)


class Comparator(Strict):
    """An API that could answer this model's traffic instead."""

    price: str = Field(description="Name in the price book.")
    role: Role = Field(description="What the comparison shows: the same model hosted, the cheapest adequate, the best.")
    token_ratio: Ratio = Field(
        Decimal(1), json_schema_extra={"default": 1}, description="Tokens that the API counts for one token that this "
        "model's tokenizer counts; `flotilla prices ratio` measures it.")
    token_ratio_source: str = Field("", description="Where the ratio is from: measured how, or assumed.")
    batch: bool = Field(False, description="Whether the API's batch prices count, for traffic that can wait.")

    @model_validator(mode="after")
    def _ratio_has_a_source(self) -> Comparator:
        if self.token_ratio != 1 and not self.token_ratio_source:
            raise ValueError(f"token_ratio {self.token_ratio} needs token_ratio_source: say how it was measured "
                             "(`flotilla prices ratio` does) or that it is assumed")
        return self

    @property
    def name(self) -> str:
        """The comparison's name in ledger and reports."""
        return f"{self.price} (batch)" if self.batch else self.price
