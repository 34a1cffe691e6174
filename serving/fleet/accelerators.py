"""Accelerator profiles: the hardware that a replica occupies and what an hour of it costs.

Models name a profile, not a GPU: prices and node pools change, the model's needs do not. A profile's price is a number,
or a reference to the accelerator price book (`accelerator_book`), or left to the labels of the node that a replica runs
on (`nodes`); `resolve` makes all three the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from serving.errors import ConfigError
from serving.fleet import nodes
from serving.fleet.accelerator_book import AcceleratorBook, Capacity, PriceRow
from serving.fleet.config import Strict
from serving.fleet.costspecs import UsdPerHour
from serving.fleet.money import PriceLine, nanousd
from serving.fleet.specs import as_tuple


class NodePrice(Strict):
    """What a node with certain labels costs, for clouds whose labels do not say it themselves."""

    labels: dict[str, str] = Field(min_length=1, description="Labels that the node must all have.")
    provider: str = Field(description="Provider in the price book.")
    region: str | None = Field(None, description="Region in the price book. Empty: the only one there.")
    instance_type: str | None = Field(None, description="Instance type in the price book. Empty: the only one there.")
    capacity: Capacity = Field("on_demand", description="How the node is rented.")


class PriceReference(Strict):
    """A price in the accelerator price book, by name or by the labels of a replica's node."""

    accelerator: str | None = Field(None, description="Accelerator in the price book. Empty: the profile's type.")
    provider: str | None = Field(None, description="Provider in the price book.")
    region: str | None = Field(None, description="Region in the price book. Empty: the only one there.")
    instance_type: str | None = Field(None, description="Instance type in the price book. Empty: the only one there.")
    capacity: Capacity | None = Field(None, description="How it is rented; on_demand when left out.")
    from_node_labels: bool = Field(False, description="Take instance type, region and capacity from the labels of the "
                                                      "Kubernetes node.")
    nodes: tuple[NodePrice, ...] = Field((), description="With from_node_labels: prices of nodes whose labels say too "
                                                         "little. The first whose labels fit counts.")

    _lists = field_validator("nodes", mode="before")(as_tuple)

    @model_validator(mode="after")
    def _one_way(self) -> PriceReference:
        named = [k for k in ("provider", "region", "instance_type", "capacity") if getattr(self, k) is not None]
        if self.from_node_labels and named:
            raise ValueError(f"from_node_labels leaves {', '.join(named)} to the node; remove one or the other "
                             "(nodes: maps labels to prices)")
        if not self.from_node_labels and self.nodes:
            raise ValueError("nodes: is for from_node_labels: true only")
        if not self.from_node_labels and self.provider is None:
            raise ValueError("provider is missing: name one of the price book's, or say from_node_labels: true")
        return self


class AcceleratorProfile(Strict):
    """One kind of device a replica can run on. Its price is exactly one of price_usd_per_hour and price."""

    kind: Literal["cpu", "gpu"] = Field(description="Whether the engine runs on processor cores or on GPUs.")
    type: str | None = Field(None, description="Ray's accelerator type for GPUs, for example H100 or L40S.")
    memory_gib: float = Field(gt=0, description="Memory of one device, GiB.")
    cpus: float = Field(1.0, gt=0, description="Processor cores that Ray reserves for one replica.")
    price_usd_per_hour: UsdPerHour | None = Field(None, description="Price of one device for an hour, USD. What costs "
                                                                    "are made of.")
    price: PriceReference | None = Field(None, description="Instead of a number: where the price is found.")
    price_source: str = Field("", description="Where the number is from and when it was read.")

    @model_validator(mode="after")
    def _gpu_needs_type(self) -> AcceleratorProfile:
        if self.kind == "cpu" and self.type is not None:
            raise ValueError("type is for kind: gpu only; remove it or set kind: gpu")
        return self

    @model_validator(mode="after")
    def _one_price(self) -> AcceleratorProfile:
        if (self.price is None) == (self.price_usd_per_hour is None):
            found = "neither" if self.price is None else "both"
            raise ValueError(f"needs exactly one of price_usd_per_hour (a number) and price (a reference); has {found}")
        if self.price and not self.accelerator:
            raise ValueError("price.accelerator is missing: name one of the price book's, or give the profile a type")
        return self

    @property
    def accelerator(self) -> str:
        """Its name in the price book; empty where the price is a number and nothing names one."""
        return (self.price.accelerator if self.price else None) or self.type or ""

    @property
    def needs_labels(self) -> bool:
        """Whether its price is known only where a replica runs."""
        return self.price is not None and self.price.from_node_labels


def resolve(profile: AcceleratorProfile, book: AcceleratorBook | None,
            labels: Mapping[str, str] | None = None) -> PriceLine:
    """What one device of the profile costs over time, nano-USD per hour.

    `labels`: those of the Kubernetes node, where the profile leaves the price to them.
    Raises: ConfigError when there is no such price, or more than one, with the nearest that there are.
    """
    if profile.price_usd_per_hour is not None:
        return PriceLine.fixed(nanousd(profile.price_usd_per_hour))
    return _book(book).line(_rows(profile, _book(book), labels))


def price_rows(profile: AcceleratorProfile, book: AcceleratorBook) -> tuple[PriceRow, ...]:
    """The rows of the book that a profile's replicas may come to pay by, wherever they run.

    Raises: ConfigError when there is none, or when one that the profile names is missing.
    """
    price = profile.price
    if price is None:
        return ()
    if not price.from_node_labels:
        return _rows(profile, book, None)
    mapped = [row for node in price.nodes for row in _mapped(profile, node, book)]
    own = [row for row in book.of(profile.accelerator) if row.instance_type and row.usd_per_hour is not None]
    if not mapped and not own:
        raise ConfigError(f"no row of {book.name} for {profile.accelerator!r} names an instance type that a node's "
                          "labels could lead to; add one, or map labels to prices under nodes")
    return tuple(dict.fromkeys([*mapped, *own]))


def _rows(profile: AcceleratorProfile, book: AcceleratorBook, labels: Mapping[str, str] | None) -> tuple[PriceRow, ...]:
    price = profile.price
    assert price is not None
    if not price.from_node_labels:
        return book.find(profile.accelerator, price.provider, price.region, price.instance_type,
                         price.capacity or "on_demand")
    if labels is None:
        raise ConfigError(f"the price of {profile.accelerator} comes from the labels of a replica's node, and none are "
                          "known here; on a machine without Kubernetes give price_usd_per_hour")
    for node in price.nodes:
        if all(labels.get(key) == value for key, value in node.labels.items()):
            return _mapped(profile, node, book)
    found = nodes.facts(labels)
    return book.find(profile.accelerator, found.provider, found.region, found.instance_type, found.capacity)


def _mapped(profile: AcceleratorProfile, node: NodePrice, book: AcceleratorBook) -> tuple[PriceRow, ...]:
    return book.find(profile.accelerator, node.provider, node.region, node.instance_type, node.capacity)


def _book(book: AcceleratorBook | None) -> AcceleratorBook:
    if book is None:
        raise ConfigError("there is no accelerator price book to find it in; name one in the fleet file's "
                          "accelerator_prices, or give price_usd_per_hour")
    return book


def scaled(line: PriceLine, devices: int) -> PriceLine:
    """The line of so many devices together."""
    return PriceLine(tuple((since, price * devices) for since, price in line.changes))


def price_range(profile: AcceleratorProfile, book: AcceleratorBook | None) -> tuple[int, int]:
    """The least and the most that one device may cost by the node it is in, nano-USD per hour, for `needs_labels`.

    Raises: ConfigError.
    """
    rows = price_rows(profile, _book(book))
    priced = [nanousd(row.usd_per_hour) for row in rows if row.usd_per_hour is not None]
    return min(priced), max(priced)
