"""Which accelerators can hold a model, how many, at what price: every device of the price book whose memory is known.

Prices come from the accelerator price book as it is at a moment; the moment is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from serving.fleet.accelerator_book import AcceleratorBook, Capacity, PriceRow
from serving.fleet.models.architecture import Architecture
from serving.fleet.models.fit import Demand, Fit, default_batched, fit
from serving.fleet.models.weights import Format, Split
from serving.fleet.roofline import AcceleratorSpec

COUNTS = (1, 2, 4, 8, 16, 32)
_HOST = 8  # devices of one machine; more are a second one, and pipeline stages


@dataclass(frozen=True)
class Choice:
    """A set of devices that could hold the model. price: the cheapest row for one device now, None where none is known.
    """

    accelerator: str
    precision: str
    split: Split
    fit: Fit
    concurrency: int
    price: PriceRow | None

    @property
    def usd_per_hour(self) -> float | None:
        """Of one replica."""
        if self.price is None or self.price.usd_per_hour is None:
            return None
        return float(self.price.usd_per_hour) * self.split.devices

    @property
    def variant(self) -> str:
        """As `H100 x2`."""
        return self.accelerator + (f" x{self.split.devices}" if self.split.devices > 1 else "")


def choices(model: Architecture, formats: Mapping[str, tuple[Format, float | None]],
            devices: Iterable[AcceleratorSpec], book: AcceleratorBook | None, demand: Demand, concurrency: int,
            at: float, capacity: Capacity = "on_demand") -> list[Choice]:
    """For each device and precision the smallest number of them that holds the model and `concurrency` requests of
    `demand.context` tokens; cheapest first, those without a price last.

    `formats`: by precision's name, how weights are stored and (if known) bytes loaded. `at`: Unix seconds. Tokens per
    step are each device's default.
    """
    found: list[Choice] = []
    for device in devices:
        price = cheapest(book, device.name, capacity, at)
        asked = replace(demand, batched=default_batched(device.name, device.memory))
        for precision, (form, loaded) in formats.items():
            for count in COUNTS:
                split = split_for(count, model)
                tried = fit(model, form, split, device.memory, asked, loaded)
                if tried.verdict == "no" or tried.concurrency(demand.context) < concurrency:
                    continue
                found.append(Choice(device.name, precision, split, tried, tried.concurrency(demand.context), price))
                break
    return sorted(found, key=lambda c: (c.usd_per_hour is None, c.usd_per_hour or 0, c.split.devices, c.accelerator))


def split_for(count: int, model: Architecture) -> Split:
    """How so many devices would share the model: tensor parallel within one machine, stages beyond, experts spread."""
    tensor = min(count, _HOST)
    return Split(tensor, count // tensor, 1, expert=model.n_experts > 0 and count > 1)


def cheapest(book: AcceleratorBook | None, accelerator: str, capacity: Capacity, at: float) -> PriceRow | None:
    """The cheapest offer of one device at a moment: of each thing on offer its newest row that is valid by then."""
    newest: dict[tuple[str, ...], PriceRow] = {}
    for row in book.rows if book else ():
        if row.accelerator == accelerator and row.capacity == capacity and row.valid_from <= at:
            before = newest.get(row.of)
            if before is None or row.valid_from > before.valid_from:
                newest[row.of] = row
    priced = [row for row in newest.values() if row.usd_per_hour is not None]
    return min(priced, key=lambda row: (row.usd_per_hour, row.provider), default=None)  # type: ignore[arg-type]
