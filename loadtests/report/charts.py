"""Charts as inline SVG, drawn by hand: no script, no font, nothing to load.

A chart is drawn for a given width in CSS pixels, so that its text stays readable on a phone; the page carries
a wide and a narrow drawing and shows one. Colours come from the page's style (`--c0` …), so they follow dark
mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loadtests.report.model import Timeline

SERIES = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 10, 34
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


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
            return (math.log10(max(value, self.low)) - low) / (high - low)
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
    steps = [factor * 10.0**power for power in range(-3, 8) for factor in (1, 2, 5)]
    first = max((step for step in steps if step <= low), default=steps[0])
    last = min((step for step in steps if step >= high and step > first), default=steps[-1])
    return Axis(first, last, tuple(step for step in steps if first <= step <= last), log=True)


@dataclass(frozen=True)
class Frame:
    """The plotting area inside an SVG of `width` × `height` CSS pixels, with its two axes."""

    width: int
    height: int
    x: Axis
    y: Axis

    def point(self, x: float, y: float) -> tuple[float, float]:
        inner_width = self.width - _LEFT - _RIGHT
        inner_height = self.height - _TOP - _BOTTOM
        return _LEFT + self.x.place(x) * inner_width, self.height - _BOTTOM - self.y.place(y) * inner_height

    def grid(self, x_label: str, x_text: Callable[[float], str], y_text: Callable[[float], str]) -> str:
        """Grid lines, tick texts and the label of the x axis."""
        parts = []
        for tick in self.y.ticks:
            x, y = self.point(self.x.low, tick)
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{self.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{y_text(tick)}</text>')
        for tick in _thinned(self):
            x, y = self.point(tick, self.y.low)
            parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}"/>')
            parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{x_text(tick)}</text>')
        right, bottom = self.width - _RIGHT, self.height - 3
        parts.append(f'<text x="{right}" y="{bottom}" text-anchor="end">{x_label}</text>')
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> str:
        """A polyline through values."""
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.point(*point) for point in points))
        return f'<polyline {style} points="{placed}"/>'

    def svg(self, body: str, title: str) -> str:
        box = f'viewBox="0 0 {self.width} {self.height}"'
        return f'<svg {box} role="img" aria-label="{escape(title)}">{body}</svg>'


def _thinned(frame: Frame) -> list[float]:
    """The x ticks that have room for their text, 34 pixels each."""
    kept: list[float] = []
    for tick in frame.x.ticks:
        if not kept or frame.point(tick, frame.y.low)[0] - frame.point(kept[-1], frame.y.low)[0] >= 34:
            kept.append(tick)
    return kept


def series_style(index: int) -> str:
    """Stroke of the n-th series: a colour, and a dash once the colours repeat."""
    dash = _DASHES[index // SERIES % len(_DASHES)]
    return f'class="line" stroke="var(--c{index % SERIES})"' + (f' stroke-dasharray="{dash}"' if dash else "")


def ttft_cdf(curves: Mapping[str, Sequence[tuple[float, float]]], width: int) -> str:
    """Share of requests whose first token came within x milliseconds, a curve per model."""
    drawn = {index: curve for index, curve in enumerate(curves.values()) if curve}
    values = [value for curve in drawn.values() for value, _ in curve]
    if not values:
        return ""
    low, high = max(min(values), 0.01), max(values)
    x = log_axis(low, high) if high / low > 12 else linear_axis(high, 6 if width > 500 else 4)
    frame = Frame(width, 240, x, Axis(0, 1, (0, 0.25, 0.5, 0.75, 1)))
    body = frame.grid("TTFT, ms" + (" (log)" if x.log else ""), _plain, lambda share: f"{share:.0%}")
    for index, curve in drawn.items():
        steps = [(curve[0][0], 0.0)]
        for (value, share), (following, _) in zip(curve, [*curve[1:], (x.high, 1.0)], strict=True):
            steps += [(value, share), (following, share)]
        body += frame.line(steps, series_style(index))
    return frame.svg(body, "Cumulative distribution of the time to first token per model")


def traffic_timeline(timeline: Timeline, warmup_s: float, width: int) -> str:
    """Requests per second sent, completed and failed."""
    highest = max([1, *timeline.sent, *timeline.completed, *timeline.errors])
    frame = Frame(width, 190, _seconds(timeline, width), linear_axis(highest, 3))
    body = _warmup(frame, warmup_s) + frame.grid("second of the run", _plain, _plain)
    bar = max(1.0, (width - _LEFT - _RIGHT) / frame.x.high - 1)
    for second, failed in enumerate(timeline.errors):
        if failed:
            x, top = frame.point(second, failed)
            _, bottom = frame.point(second, 0)
            height = bottom - top
            body += f'<rect class="bad" x="{x:.1f}" y="{top:.1f}" width="{bar:.1f}" height="{height:.1f}"/>'
    for values, index in ((timeline.sent, 0), (timeline.completed, 1)):
        points = [(second + 0.5, float(value)) for second, value in enumerate(values)]
        body += frame.line(points, series_style(index))
    return frame.svg(body, "Requests per second: sent, completed, failed")


def ttft_timeline(timeline: Timeline, warmup_s: float, width: int) -> str:
    """Median TTFT of the requests sent in each second."""
    known = [value for value in timeline.ttft_p50_ms if value is not None]
    if not known:
        return ""
    frame = Frame(width, 160, _seconds(timeline, width), linear_axis(max(known), 3))
    body = _warmup(frame, warmup_s) + frame.grid("second of the run", _plain, _plain)
    run: list[tuple[float, float]] = []
    for second, value in enumerate([*timeline.ttft_p50_ms, None]):
        if value is not None:
            x, y = frame.point(second + 0.5, value)
            body += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
            run.append((second + 0.5, value))
        else:
            # A second without a request is a gap, not a zero.
            body += frame.line(run, series_style(2)) if len(run) > 1 else ""
            run = []
    return frame.svg(body, "Median time to first token per second, milliseconds")


def _seconds(timeline: Timeline, width: int) -> Axis:
    axis = linear_axis(len(timeline.sent), 10 if width > 500 else 5)
    return Axis(
        0, float(len(timeline.sent)), tuple(tick for tick in axis.ticks if tick <= len(timeline.sent))
    )


def _warmup(frame: Frame, warmup_s: float) -> str:
    if warmup_s <= 0:
        return ""
    left, top = frame.point(0, frame.y.high)
    right, bottom = frame.point(min(warmup_s, frame.x.high), 0)
    area = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect class="warmup" {area}><title>warm-up, not measured</title></rect>'


def _plain(value: float) -> str:
    return f"{value:,.6g}"
