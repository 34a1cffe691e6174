"""Figures as people read them: three significant digits, a unit, and a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtests.report.model import Estimated

DASH = "–"


def usd(value: float | None) -> str:
    """Dollars: $12.30, $0.0123, $0.0000123; below a nano-dollar only that it is below."""
    if value is None:
        return DASH
    # Rounded first: 0.000999999 is shown as 0.00100, not with a fourth digit.
    size = float(f"{abs(value):.3g}") if abs(value) < 1 else abs(value)
    sign = "−" if value < 0 else ""
    if size == 0:
        return "$0"
    if size < 1e-9:
        return f"{sign}<$0.000000001"
    if size >= 1:
        return f"{sign}${size:,.2f}"
    decimals = 2 - math.floor(math.log10(size))
    return f"{sign}${size:.{decimals}f}"


def ms(value: float | int | None) -> str:
    """Milliseconds without the unit: two decimals below 10, one below 100."""
    if value is None:
        return DASH
    # The limits are where rounding would add a digit: 9.996 is 10.0, not 10.00.
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A rate: two decimals below 10, one below 100, none above."""
    return ms(value)


def percent(share: float | None, decimals: int = 1) -> str:
    return DASH if share is None else f"{share * 100:.{decimals}f}%"


def saving(share: float | None) -> str:
    """A saving in words: how much less, or how many times as much."""
    if share is None:
        return DASH
    if share >= 0:
        # what costs something never costs 100% less
        return f"{share:.0%} less" if share < 0.995 else f"{min(share, 0.9999):.2%} less"
    factor = 1 - share
    return f"{factor:.1f}× the price" if factor < 100 else f"{factor:,.0f}× the price"


def count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def span(found: Estimated | None, text: Callable[[float], str], between: str = "–") -> str:
    """An interval in words: 12–15; "at least 12" where its upper end is not known; a dash where nothing is."""
    if found is None or (found.low is None and found.high is None):
        return DASH
    if found.high is None:
        return f"at least {text(found.low or 0.0)}"
    if found.low is None:
        return f"at most {text(found.high)}"
    return f"{text(found.low)}{between}{text(found.high)}"


def utilisation(share: float | None) -> str:
    """A utilisation; above 1 it cannot be."""
    if share is None:
        return DASH
    return f"{share * 100:.3g}%" if share <= 1 else "never"
