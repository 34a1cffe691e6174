"""The pieces that charts are drawn with: axes, a frame, lines. Inline SVG, no script, no font, nothing to load.

A chart is drawn for a given width in CSS pixels, so that its text stays readable on a phone; the page carries
a wide and a narrow drawing and shows one. Colours come from the page's style (`--c0` …), so they follow dark
mode; each series has a dash of its own as well, so that no one needs the colours. Every drawing has a title and a
description for those who hear it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

SERIES = 8
WIDE, NARROW = 1040, 340
#: Room for what the axis shows, and below it for the texts of upright lines.
_TOP, _RIGHT = 34, 14
_DASHES = ("", "7 3", "2 3", "9 3 2 3")

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Axis:
    """A value range with round ticks; `place` maps a value to 0…1."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(min(max(value, self.low), self.high)) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(high: float, wanted: int = 4) -> Axis:
    """From 0 to a round number at or above `high`."""
    if high <= 0:
        return Axis(0, 1, (0, 1))
    raw = high / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    steps = math.ceil(high / step - 1e-9)
    return Axis(0, steps * step, tuple(step * i for i in range(steps + 1)))


def log_axis(low: float, high: float) -> Axis:
    """Logarithmic, from the 1-2-5 step at or below `low` to the one at or above `high`."""
    steps = [factor * 10.0**power for power in range(-12, 8) for factor in (1, 2, 5)]
    first = max((step for step in steps if step <= low * 1.0001), default=steps[0])
    last = min((step for step in steps if step >= high * 0.9999 and step > first), default=steps[-1])
    return Axis(first, last, tuple(step for step in steps if first <= step <= last), log=True)


def fitting_axis(low: float, high: float, width: int) -> Axis:
    """Logarithmic where values lie more than a factor of twelve apart, else from 0."""
    low = max(low, high / 1e6, 1e-9)
    return log_axis(low, high) if high / low > 12 else linear_axis(high, 6 if width > 500 else 4)


def time_axis(length_s: float, width: int) -> Axis:
    """From 0 to the end of the run, not rounded up."""
    ticks = linear_axis(length_s, 10 if width > 500 else 5).ticks
    return Axis(0, length_s, tuple(tick for tick in ticks if tick <= length_s))


@dataclass(frozen=True)
class Frame:
    """The plotting area inside an SVG of `width` × `height` CSS pixels, with its two axes."""

    width: int
    height: int
    x: Axis
    y: Axis
    left: int = 52
    bottom: int = 34

    def point(self, x: float, y: float) -> tuple[float, float]:
        inner_width = self.width - self.left - _RIGHT
        inner_height = self.height - _TOP - self.bottom
        return self.left + self.x.place(x) * inner_width, self.height - self.bottom - self.y.place(y) * inner_height

    def grid(
        self, y_label: str, x_label: str, x_text: Callable[[float], str], y_text: Callable[[float], str]
    ) -> str:
        """Grid lines, tick texts and what the axes show, with units. No x_label: no x ticks either."""
        parts = []
        for tick in self._thinned(self.y.ticks, vertical=True):
            x, y = self.point(self.x.low, tick)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{self.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(y_text(tick))}</text>')
        if x_label:
            for tick in self._thinned(self.x.ticks):
                x, y = self.point(tick, self.y.low)
                parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}"/>')
                text = escape(x_text(tick))
                # at the edges there is no room for one half
                half = text_width(text) / 2
                at, anchor = (float(self.width), "end") if x + half > self.width else (x, "middle")
                if x - half < 0:
                    at, anchor = 0.0, "start"
                parts.append(f'<text x="{at:.1f}" y="{y + 16:.1f}" text-anchor="{anchor}">{text}</text>')
            right, bottom = self.width - _RIGHT, self.height - 3
            parts.append(f'<text x="{right}" y="{bottom}" text-anchor="end">{escape(x_label)}</text>')
        parts.append(f'<text class="name" x="{0 if self.width < 500 else 2}" y="13">{escape(y_label)}</text>')
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> str:
        """A polyline through values."""
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.point(*point) for point in points))
        return f'<polyline {style} points="{placed}"/>'

    def broken_line(self, points: Sequence[Point], index: int, steps: bool = False) -> str:
        """A series with gaps where a value is None: a gap is no zero. A lone value is a dot."""
        body, run = "", list[tuple[float, float]]()
        for x, value in [*points, (0.0, None)]:
            if value is not None:
                if steps and run:
                    run.append((x, run[-1][1]))
                run.append((x, value))
                continue
            if len(run) > 1:
                body += self.line(run, series_style(index))
            elif run:
                left, top = self.point(*run[0])
                body += f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2" fill="var(--c{index % SERIES})"/>'
            run = []
        return body

    def area(self, start: float, end: float, kind: str, title: str) -> str:
        """A shaded stretch of the x axis."""
        left, top = self.point(max(start, self.x.low), self.y.high)
        right, bottom = self.point(min(end, self.x.high), self.y.low)
        if right <= left:
            return ""
        place = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        return f'<rect class="{kind}" {place}><title>{escape(title)}</title></rect>'

    def upright(self, x: float, kind: str, text: str = "", drop: float = 0.0) -> str:
        """A vertical line, with a text at its top; drop: how many pixels lower."""
        left, top = self.point(x, self.y.high)
        _, bottom = self.point(x, self.y.low)
        end = left > self.width * 0.7
        x, y, anchor = left + (-4 if end else 4), top - 4 + drop, "end" if end else "start"
        said = (
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
            if text
            else ""
        )
        return f'<line class="{kind}" x1="{left:.1f}" x2="{left:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>{said}'

    def uprights(self, top: float) -> str:
        """A grid line at every x tick, from `top` pixels down to the axis, for charts whose rows have no y values."""
        return "".join(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{self.height - self.bottom}"/>'
            for x, _ in (self.point(tick, 0) for tick in self.x.ticks)
        )

    def svg(self, body: str, title: str, said: str, key: str) -> str:
        return svg(self.width, self.height, body, title, said, key)

    def _thinned(self, ticks: Sequence[float], vertical: bool = False) -> list[float]:
        """The ticks that have room for their text."""
        room, kept = (15 if vertical else 40), list[tuple[float, float]]()
        for tick in ticks:
            left, top = self.point(tick, self.y.low) if not vertical else self.point(self.x.low, tick)
            at = top if vertical else left
            if not kept or abs(at - kept[-1][1]) >= room:
                kept.append((tick, at))
        return [tick for tick, _ in kept]


def svg(width: int, height: int, body: str, title: str, said: str, key: str) -> str:
    """A drawing with its title and description; key: unique on the page."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(said)}</desc>{body}</svg>'
    )


def both(draw: Callable[[int, str], str], key: str) -> str:
    """A wide drawing and a narrow one, of which the page shows one; "" where there is nothing to draw."""
    wide = draw(WIDE, f"{key}-w")
    return f'<div class="wide">{wide}</div><div class="narrow">{draw(NARROW, f"{key}-n")}</div>' if wide else ""


def series_style(index: int) -> str:
    """Stroke of the n-th series: a colour and a dash."""
    dash = _DASHES[(index + index // SERIES) % len(_DASHES)]
    return f'class="line" stroke="var(--c{index % SERIES})"' + (f' stroke-dasharray="{dash}"' if dash else "")


def swatch(index: int) -> str:
    """The n-th series' line, for a legend."""
    return f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><path d="M1 4H27" {series_style(index)}/></svg>'


def plain(value: float) -> str:
    """A number as an axis has it."""
    return f"{value:,.6g}"


def text_width(text: str) -> float:
    """About as many pixels as a text takes."""
    return len(text) * 6.6


def cut(text: str, width: float) -> str:
    """A text that fits."""
    room = max(3, int(width / 6.6))
    return text if len(text) <= room else f"{text[: room - 1]}…"
