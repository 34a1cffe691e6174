"""Money as integers: one nano-US-dollar is 1e-9 USD.

Why integers: the ledger's promise is that shares add up to the bill exactly, and binary floats do not add up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

NANO = 1_000_000_000
NS_PER_HOUR = 3_600 * 1_000_000_000


def nanousd(usd: Decimal | int | str) -> int:
    """US dollars to nano-dollars, rounded half to even. `usd` is never a float: 0.1 has no exact float."""
    return int((Decimal(usd) * NANO).to_integral_value())


def usd(nano: int) -> float:
    """Nano-dollars to US dollars as a float, for showing and for JSON; never for adding up."""
    return nano / NANO


def bill(price_nanousd_per_hour: int, elapsed_ns: int) -> int:
    """What `elapsed_ns` nanoseconds at a price cost, in nano-dollars, rounded down.

    The cost of an interval is the difference of two bills, `bill(p, end) - bill(p, start)`: differences telescope, so
    intervals that cover a time add up to that time's bill with nothing lost to rounding.
    """
    return price_nanousd_per_hour * elapsed_ns // NS_PER_HOUR


@dataclass(frozen=True)
class PriceLine:
    """A price over time: (from when, Unix seconds; nano-USD per hour), in rising order. The first holds before, too.

    Raises: ValueError when it is empty, out of order, or a price is negative.
    """

    changes: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        times = [at for at, _ in self.changes]
        if not times or any(a >= b for a, b in zip(times, times[1:], strict=False)):
            raise ValueError("a price line needs at least one price, and its times must rise")
        if min(price for _, price in self.changes) < 0:
            raise ValueError("a price is negative")

    @classmethod
    def fixed(cls, nanousd_per_hour: int) -> PriceLine:
        """One price for all time."""
        return cls(((0.0, nanousd_per_hour),))

    def at(self, unix_s: float) -> int:
        """The price at a moment, nano-USD per hour."""
        return self.changes[max(0, bisect_right(self.changes, (unix_s, float("inf"))) - 1)][1]

    def next_change(self, after_s: float) -> float:
        """When the price changes next, Unix seconds; infinity when it does not."""
        return next((at for at, _ in self.changes[1:] if at > after_s), float("inf"))

    def then(self, at_s: float, line: PriceLine) -> PriceLine:
        """This line until `at_s` and another from then on; what was to come of this one is dropped."""
        found = [c for c in self.changes if c[0] < at_s]
        for at, price in ((at_s, line.at(at_s)), *(c for c in line.changes if c[0] > at_s)):
            if not found or found[-1][1] != price:
                found.append((at, price))
        return PriceLine(tuple(found))


def apportion(total: int, weights: Sequence[int], keys: Sequence[str] | None = None) -> list[int]:
    """Split the integer `total` in proportion to non-negative integer `weights` by the largest-remainder method.

    Returns: one integer per weight, which add up to `total`. If all weights are 0 they count as equal. Ties of
    remainders go to the smaller of `keys`, so that the order in which they are given does not matter; without keys to
    the earlier weight.
    Raises: ValueError when there is nothing to split to, or a weight is negative.
    """
    if not weights:
        raise ValueError("cannot apportion to no one")
    if min(weights) < 0:
        raise ValueError("a weight is negative")
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    shares = [total * w // whole for w in weights]
    rest = total - sum(shares)
    if rest:
        names: Sequence[str] | Sequence[int] = keys if keys is not None else range(len(weights))
        order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), names[i]))
        for i in order[:rest]:
            shares[i] += 1
    return shares
