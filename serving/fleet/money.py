"""Money as integers: one nano-US-dollar is 1e-9 USD.

Why integers: the ledger's promise is that shares add up to the bill exactly, and binary floats do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split the integer `total` in proportion to non-negative integer `weights` by the largest-remainder method.

    Returns: one integer per weight, which add up to `total`. If all weights are 0 they count as equal. Ties of
    remainders go to the earlier weight, so the same input gives the same split everywhere.
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
        order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
        for i in order[:rest]:
            shares[i] += 1
    return shares
