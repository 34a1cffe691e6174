"""The cheapest set of replicas of several variants that can take a given demand."""

from __future__ import annotations

import math
from collections.abc import Sequence


def cheapest(demand: float, worth: Sequence[float], prices: Sequence[int], least: Sequence[int],
             most: Sequence[int]) -> tuple[int, ...]:
    """Replicas by variant. demand: requests per second; worth: what a replica of each takes of it; all of `most` where
    even that is too little. Exact for up to two variants that differ; further ones are filled by price per request.

    Of equally cheap sets the one with fewer replicas, then more of earlier variants.
    """
    order = sorted(range(len(worth)), key=lambda v: (prices[v] / worth[v] if worth[v] > 0 else math.inf, v))
    found = list(least)
    rest = demand - sum(n * worth[v] for v, n in enumerate(least))
    if rest <= 1e-9:
        return tuple(found)
    for at, v in enumerate(order):
        if worth[v] <= 0:
            break
        room = most[v] - found[v]
        wanted = min(room, math.ceil(rest / worth[v] - 1e-9))
        others = order[at + 1:]
        if wanted * worth[v] >= rest - 1e-9 or not others:
            return tuple(_finish(found, v, wanted, rest, worth, prices, most, others))
        found[v] += wanted
        rest -= wanted * worth[v]
    return tuple(found)


def _finish(found: list[int], v: int, wanted: int, rest: float, worth: Sequence[float], prices: Sequence[int],
            most: Sequence[int], others: Sequence[int]) -> list[int]:
    """The last replicas of the cheapest kind may be too much: a smaller one may do for what is left."""
    best, price, size = None, math.inf, math.inf
    for fewer in range(0, min(wanted, 8) + 1):
        left = rest - (wanted - fewer) * worth[v]
        for other in [None] if left <= 1e-9 else others:
            chosen = list(found)
            chosen[v] += wanted - fewer
            if other is not None:
                if worth[other] <= 0:
                    continue
                more = math.ceil(left / worth[other] - 1e-9)
                if chosen[other] + more > most[other]:
                    continue
                chosen[other] += more
            cost = sum(n * p for n, p in zip(chosen, prices, strict=True))
            if (cost, sum(chosen)) < (price, size):
                best, price, size = chosen, cost, sum(chosen)
    if best is None:  # even all of it is too little
        best = list(found)
        best[v] += wanted
    return best
