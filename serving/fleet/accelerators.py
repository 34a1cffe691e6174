"""Accelerator profiles: the hardware that a replica occupies and what an hour of it costs.

Models name a profile, not a GPU: prices and node pools change, the model's needs do not.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from serving.fleet.config import Strict
from serving.fleet.money import nanousd


def _exact_decimal(value: object) -> object:
    """YAML gives floats; their shortest text form is what the author wrote, so that is what counts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(str(value))
    raise ValueError(f"must be a number of US dollars; found {value!r}")


UsdPerHour = Annotated[Decimal, BeforeValidator(_exact_decimal), Field(ge=0, le=10_000, decimal_places=9)]


class AcceleratorProfile(Strict):
    """One kind of device a replica can run on."""

    kind: Literal["cpu", "gpu"] = Field(description="Whether the engine runs on processor cores or on GPUs.")
    type: str | None = Field(None, description="Ray's accelerator type for GPUs, for example H100 or L40S.")
    memory_gib: float = Field(gt=0, description="Memory of one device, GiB.")
    cpus: float = Field(1.0, gt=0, description="Processor cores that Ray reserves for one replica.")
    price_usd_per_hour: UsdPerHour = Field(description="Price of one device for an hour, USD. What costs are made of.")
    price_source: str = Field("", description="Where the price is from and when it was read.")

    @model_validator(mode="after")
    def _gpu_needs_type(self) -> AcceleratorProfile:
        if self.kind == "cpu" and self.type is not None:
            raise ValueError("type is for kind: gpu only; remove it or set kind: gpu")
        return self

    def price_nanousd_per_hour(self, devices: int) -> int:
        """Price of a replica on `devices` such devices, nano-USD per hour."""
        return nanousd(self.price_usd_per_hour) * devices
