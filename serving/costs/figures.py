"""Amounts and shares as text, for tables, sentences and pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from decimal import Decimal

from serving.fleet.money import NANO, usd

DASH = "–"
ROLES = {
    "same_model_hosted": "same model hosted",
    "cheapest_proprietary": "cheapest proprietary",
    "frontier": "frontier",
}
BUCKETS = {
    "direct": "direct", "waste": "waste", "idle": "idle", "cold_start": "cold start", "overhead": "overhead",
}


def exact(nanousd: int) -> str:
    """Nano-USD as USD with all nine digits, for files that are added up."""
    return f"{Decimal(nanousd) / NANO:.9f}"


def dollars(amount: float | None) -> str:
    """USD that stay readable when they are tiny: three significant digits, at least cents, no exponent."""
    if amount is None:
        return DASH
    if amount == 0:
        return "$0"
    sign, size = ("-" if amount < 0 else ""), abs(amount)
    if size >= 100:
        return f"{sign}${size:,.2f}"
    digits = max(2, 2 - int(f"{size:e}".partition("e")[2]))
    return f"{sign}${size:.{digits}f}"


def money(nanousd: int | None) -> str:
    """Nano-USD as readable USD."""
    return DASH if nanousd is None else dollars(usd(nanousd))


def aligned(amounts: Iterable[int]) -> Callable[[int], str]:
    """How to write nano-USD in one table, so that their points stand below each other and the largest is readable.

    What is too small for that is written as less than the last digit, never as nothing.
    """
    most = usd(max((abs(a) for a in amounts), default=0))
    digits = min(9, max(2, 4 - math.floor(math.log10(most)))) if most else 2

    def text(nanousd: int) -> str:
        if nanousd and abs(usd(nanousd)) < 10.0**-digits:
            return f"{'<' if nanousd > 0 else '>-'}{10.0**-digits:.{digits}f}"
        return f"{usd(nanousd):,.{digits}f}" if nanousd else "0"

    return text


def per(nanousd: int, count: int) -> float | None:
    """USD for each of `count`; None when there is none."""
    return usd(nanousd) / count if count else None


def percent(share: float | None) -> str:
    """A share of 1 as text: 0.195 is 19.5%."""
    if share is None:
        return DASH
    if share == 0:
        return "0%"
    size = abs(share * 100)
    if size < 1e-4:
        return "<0.0001%"
    if size < 1:
        return f"{float(f'{share * 100:.2g}'):f}".rstrip("0").rstrip(".") + "%"
    return f"{share:.1%}" if size < 100 else f"{share:,.0%}"


def attained(share: float | None) -> str:
    """A share near 1 with as many digits as tell it from 1: 0.99956 is 99.96%, not 100.0%."""
    if share is None or share >= 1 or share < 0.9:
        return percent(share)
    digits = min(7, max(1, -math.floor(math.log10(100 * (1 - share)))))
    return f"{100 * share:.{digits}f}".rstrip("0").rstrip(".") + "%"


def saving(ours: float | None, theirs: float | None) -> float | None:
    """What is saved by paying `ours` instead of `theirs`, as a share of theirs: 0.9 is 90% cheaper, -1 is twice the
    price. None where there is nothing to compare."""
    return None if ours is None or not theirs else 1 - ours / theirs


def verdict(share: float | None) -> str:
    """A saving or loss in words: 90% cheaper, 2.3 times the price."""
    if share is None:
        return DASH
    if share >= 0:
        return f"{share:.0%} cheaper" if share < 0.995 else f"{share:.1%} cheaper"
    times = 1 - share
    if times < 2:
        return f"{-share:.0%} dearer"
    return f"{times:,.1f}× the price" if times < 100 else f"{times:,.0f}× the price"


def quantity(value: float) -> str:
    """A count or mean as text: whole above 100, three digits below."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A duration as text, in µs, ms, s, min or h."""
    if value is None:
        return DASH
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:,.3g} h" if value < 3.6e6 else f"{value / 3600:,.0f} h"
