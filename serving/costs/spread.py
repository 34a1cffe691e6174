"""What the fleet costs beside its replicas, spread over the models that it serves."""

from __future__ import annotations

from collections.abc import Mapping

from serving.fleet.money import apportion


def overheads(bills: Mapping[str, int]) -> dict[str, int]:
    """Each model's part of the overhead, nano-USD: in proportion to what its replicas cost; parts add up to all of it.

    `bills`: nano-USD by model; under "" what serves no single model. Without models there is no one to bear it: {}.
    """
    served = {name: max(0, bill) for name, bill in bills.items() if name}
    return dict(zip(served, apportion(bills.get("", 0), list(served.values())), strict=True)) if served else {}
