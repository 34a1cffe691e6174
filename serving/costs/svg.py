"""Drawings as inline SVG, made by hand: no script, no font, nothing to load.

Each is drawn for a width in CSS pixels, so that its text stays readable on a phone; the page carries a wide and a
narrow one and shows what fits. Colours are the page's variables, so they follow dark mode. Every drawing has a title
and a description for those who hear it, and stands beside a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from serving.costs.figures import dollars, percent

_TEXT = 12  # a font of this size has letters of about 0.56 of it
_DASHES = ("", "7 4", "2 4", "8 3 2 3")


@dataclass(frozen=True)
class Bar:
    """A stacked bar: its name, and each part's amount in the order of the series. Amounts are in USD."""

    name: str
    parts: tuple[float, ...]

    @property
    def total(self) -> float:
        """The length of it."""
        return sum(max(0.0, part) for part in self.parts)


@dataclass(frozen=True)
class Level:
    """A horizontal line of a chart: what it stands for, and at which amount in USD."""

    name: str
    amount: float


def ticks(high: float, wanted: int) -> list[float]:
    """Round values from 0 to at least `high`."""
    if high <= 0:
        return [0.0, 1.0]
    raw = high / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    return [step * i for i in range(math.ceil(high / step - 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten around two amounts above 0, with twos and fives between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    found = [f * 10.0**p for p in range(first, last + 1) for f in steps]
    inside = [v for v in found if low * 0.999 <= v <= high * 1.001]
    below = max((v for v in found if v <= low), default=found[0])
    above = min((v for v in found if v >= high), default=found[-1])
    return sorted({below, *inside, above})


def stacked_rows(bars: Sequence[Bar], series: Sequence[str], width: int, title: str, key: str) -> str:
    """Horizontal stacked bars, each with its name above it and its amount at its end."""
    longest = max((bar.total for bar in bars), default=0.0)
    row, right = 46, 82
    body = ""
    for index, bar in enumerate(bars):
        top = index * row
        body += f'<text class="name" x="0" y="{top + 13}">{escape(_cut(bar.name, width))}</text>'
        x = 0.0
        for number, (part, of) in enumerate(zip(bar.parts, series, strict=True)):
            size = max(0.0, part) / longest * (width - right) if longest else 0.0
            if size > 0:
                body += (f'<rect x="{x:.1f}" y="{top + 19}" width="{max(size, 0.6):.1f}" height="18" '
                         f'fill="var(--b{number})"><title>{escape(bar.name)}: {escape(of)} {dollars(part)}</title>'
                         "</rect>")
            x += size
        body += f'<text x="{x + 6:.1f}" y="{top + 33}">{dollars(sum(bar.parts))}</text>'
    said = "; ".join(f"{bar.name} {dollars(sum(bar.parts))}" for bar in bars)
    return _svg(width, max(1, len(bars)) * row - 4, body, title, said, key)


def stacked_columns(bars: Sequence[Bar], series: Sequence[str], width: int, title: str, key: str) -> str:
    """Vertical stacked bars over days."""
    bottom, height = 22, 220
    axis = ticks(max((bar.total for bar in bars), default=0.0), 4)
    left = max(len(_short(t)) for t in axis) * 7 + 10
    inner = height - bottom - 10

    def y(amount: float) -> float:
        return 10 + inner * (1 - amount / axis[-1])

    body = "".join(
        f'<line class="grid" x1="{left}" x2="{width}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_short(t)}</text>' for t in axis)
    slot = (width - left) / max(1, len(bars))
    thick = min(slot * 0.72, 64)
    every = math.ceil(48 / slot)
    for index, bar in enumerate(bars):
        x, at = left + slot * index + (slot - thick) / 2, 0.0
        for number, (part, of) in enumerate(zip(bar.parts, series, strict=True)):
            if part > 0:
                body += (f'<rect x="{x:.1f}" y="{y(at + part):.1f}" width="{thick:.1f}" '
                         f'height="{max(y(at) - y(at + part), 0.6):.1f}" fill="var(--b{number})">'
                         f"<title>{escape(bar.name)}: {escape(of)} {dollars(part)}</title></rect>")
                at += part
        if index % every == 0:
            body += f'<text x="{x + thick / 2:.1f}" y="{height - 5}" text-anchor="middle">{escape(bar.name[5:])}</text>'
    said = "; ".join(f"{bar.name} {dollars(sum(bar.parts))}" for bar in bars[:40])
    return _svg(width, height, body, title, said, key)


def cost_curve(at: Callable[[float], float], levels: Sequence[Level], today: float | None, width: int, title: str,
               key: str) -> str:
    """The cost of a request over utilisation, APIs as lines across it, and today's utilisation. Logarithmic amounts."""
    right, top, bottom, height = 12, 12, 38, 300
    lowest = min(0.01, today / 1.5) if today else 0.01
    shares = [lowest * (1 / lowest) ** (i / 60) for i in range(61)]
    amounts = [at(1.0), at(lowest), *(level.amount for level in levels if level.amount > 0)]
    axis = decades(min(amounts), max(amounts))
    left = max(len(_short(t)) for t in axis) * 7 + 10
    low, high = math.log10(axis[0]), math.log10(axis[-1])

    def x(share: float) -> float:
        return left + (width - left - right) * (1 - math.log10(share) / math.log10(lowest))

    def y(amount: float) -> float:
        return top + (height - top - bottom) * (1 - (math.log10(amount) - low) / (high - low))

    body = "".join(
        f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_short(t)}</text>' for t in _thin(axis, y))
    room = float(width)  # from where on to the left there is space for a tick's text
    for share in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001):
        if share < lowest or x(share) > room or (width <= 500 and share in (0.5, 0.2, 0.05, 0.02)):
            continue
        room = x(share) - (62 if share == 1 else 44)
        body += (f'<line class="tick" x1="{x(share):.1f}" x2="{x(share):.1f}" y1="{height - bottom}" '
                 f'y2="{height - bottom + 4}"/><text x="{x(share):.1f}" y="{height - bottom + 17}" '
                 f'text-anchor="{"end" if share == 1 else "middle"}">{share * 100:g}%</text>')
    body += f'<text x="{width - right}" y="{height - 4}" text-anchor="end">utilisation (log)</text>'
    for index, level in enumerate(levels):
        if level.amount > 0:
            dash = f' stroke-dasharray="{_DASHES[index % 4]}"' if _DASHES[index % 4] else ""
            at_y = y(level.amount)
            body += (f'<line class="level" stroke="var(--l{index % 3})"{dash} x1="{left}" x2="{width - right}" '
                     f'y1="{at_y:.1f}" y2="{at_y:.1f}"><title>{escape(level.name)}: {dollars(level.amount)} a request'
                     "</title></line>")
    points = " ".join(f"{x(s):.1f},{y(at(s)):.1f}" for s in shares)
    body += f'<polyline class="curve" points="{points}"/>'
    if today:
        u = min(today, 1.0)
        body += (f'<line class="today" x1="{x(u):.1f}" x2="{x(u):.1f}" y1="{top}" y2="{height - bottom}"/>'
                 f'<circle class="now" cx="{x(u):.1f}" cy="{y(at(u)):.1f}" r="5"><title>today: {percent(today)}, '
                 f"{dollars(at(u))} a request</title></circle>")
        side, gap = ("end", -8) if x(u) > width * 0.6 else ("start", 8)
        body += (f'<text class="name" x="{x(u) + gap:.1f}" y="{top + 12}" text-anchor="{side}">now {percent(today)}'
                 "</text>")
    said = ", ".join(f"{level.name} {dollars(level.amount)}" for level in levels)
    said = f"A request costs {dollars(at(1.0))} at full use and {dollars(at(0.1))} at 10%. APIs: {said or 'none'}."
    return _svg(width, height, body, title, said, key)


def _short(amount: float) -> str:
    """A round amount without zeros at its end."""
    return f"${amount:.12f}".rstrip("0").rstrip(".")


def _thin(axis: Sequence[float], y: Callable[[float], float]) -> list[float]:
    """Ticks at least 16 pixels apart."""
    kept = [axis[0]]
    for value in axis[1:]:
        if abs(y(value) - y(kept[-1])) >= 16:
            kept.append(value)
    return kept


def _cut(text: str, width: int) -> str:
    """Text that fits a line of `width` pixels."""
    room = int(width / (_TEXT * 0.56))
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _svg(width: int, height: int, body: str, title: str, said: str, key: str) -> str:
    return (f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-t {key}-d"><title id="{key}-t">'
            f'{escape(title)}</title><desc id="{key}-d">{escape(said)}</desc>{body}</svg>')


def legend(entries: Mapping[str, str]) -> str:
    """Names with the CSS colour of each."""
    items = "".join(f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for name, colour in entries.items())
    return f'<ul class="legend">{items}</ul>'


def curve_legend(curve: str, levels: Sequence[Level]) -> str:
    """The legend of a cost curve: lines as they are drawn, so that colours are not all that tells them apart."""
    items = f'<li><b style="border-top:3px solid var(--accent)"></b>{escape(curve)}</li>'
    for index, level in enumerate(levels):
        style = ("solid", "dashed", "dotted", "double")[index % 4]
        items += f'<li><b style="border-top:3px {style} var(--l{index % 3})"></b>{escape(level.name)}</li>'
    return f'<ul class="legend">{items}</ul>'

