"""The cheapest set of replicas of several variants that can take a given demand, by trying all that could be it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


def cheapest(demand: float, worth: Sequence[float], prices: Sequence[int], least: Sequence[int],
             most: Sequence[int]) -> tuple[int, ...]:
    """Replicas by variant. demand: requests per second; worth: what a replica of each takes of it; all of `most` where
    even that is too little. Exact; its work grows with `most` to the power of the variants less one.

    Of equally cheap sets the one with fewer replicas, then more of earlier variants.
    """
    if sum(n * w for n, w in zip(most, worth, strict=True)) < demand - 1e-9:
        return tuple(most)
    sets = _enough(demand, worth, least, most)
    return min(sets, key=lambda s: (sum(n * p for n, p in zip(s, prices, strict=True)), sum(s), [-n for n in s]))


def _enough(demand: float, worth: Sequence[float], least: Sequence[int],
            most: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Sets that take the demand, none with a replica of the last variant more than it needs."""
    def need(left: float) -> int:
        return max(least[0], math.ceil(left / worth[0] - 1e-9)) if left > 1e-9 and worth[0] > 0 else least[0]

    if len(worth) == 1:
        if need(demand) * worth[0] >= demand - 1e-8 and need(demand) <= most[0]:
            yield (need(demand),)
        return
    for n in range(least[0], min(most[0], need(demand)) + 1):
        for rest in _enough(demand - n * worth[0], worth[1:], least[1:], most[1:]):
            yield (n, *rest)
