"""The charts of sweeps and of interference: goodput and latency over the rate, cost over latency, alone and in the mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loadtests.report import figures
from loadtests.report.charts import SERIES, Axis, Frame, cut, fitting_axis, linear_axis, log_axis, plain, series_style
from loadtests.report.parts import Estimated

Points = Sequence[tuple[float, Estimated | None]]


@dataclass(frozen=True)
class Curve:
    """One line of a chart over the rate, with its name."""

    name: str
    points: Points


def over_rate(
    curves: Sequence[Curve], marks: Mapping[str, float], label: str, said: str, width: int, key: str,
    limit: float | None = None, diagonal: bool = False,
) -> str:
    """Values with their intervals over the rate that was asked for; marks: upright lines at rates; diagonal: where all
    that is asked for is good."""
    values = [found.high or found.value for curve in curves for _, found in curve.points if found]
    rates = [rate for curve in curves for rate, _ in curve.points]
    if not values or not rates:
        return ""
    high = max([*values, limit if limit is not None and limit <= 4 * max(values) else 0.0])
    x = linear_axis(max(rates), 8 if width > 500 else 4)
    if diagonal:
        y, text = linear_axis(max(high, max(rates)), 4), plain
    else:
        low = min(found.value for curve in curves for _, found in curve.points if found)
        y, text = fitting_axis(low, high, 0), plain
    frame = Frame(width, 242, x, y)
    body = frame.grid(label, "arrivals per second asked for", plain, text)
    if diagonal:
        top = min(max(rates), y.high)
        body += frame.line([(0.0, 0.0), (top, top)], 'class="limit"')
    if limit is not None and limit <= y.high:
        body += frame.line([(x.low, limit), (x.high, limit)], 'class="limit"')
    for number, (name, rate) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        # texts of neighbours stand at different heights
        body += frame.upright(rate, "today", name, drop=14 * (number % 2))
    for index, curve in enumerate(curves):
        known = [(rate, found) for rate, found in curve.points if found]
        if len(known) > 1:
            body += frame.line([(rate, found.value) for rate, found in known], series_style(index))
        body += "".join(_dot(frame, rate, found, index) for rate, found in known)
    return frame.svg(body, label, said, key)


def _dot(frame: Frame, rate: float, found: Estimated, index: int) -> str:
    left, top = frame.point(rate, found.value)
    colour = f"var(--c{index % SERIES})"
    whisker = ""
    if found.low is not None and found.high is not None:
        _, above = frame.point(rate, min(found.high, frame.y.high))
        _, below = frame.point(rate, max(found.low, frame.y.low))
        whisker = (
            f'<line class="whisker" stroke="{colour}" x1="{left:.1f}" x2="{left:.1f}" y1="{above:.1f}" '
            f'y2="{below:.1f}"/>'
        )
    told = f"{plain(rate)}/s: {plain(round(found.value, 3))}"
    return f'<g><title>{told}</title>{whisker}<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{colour}"/></g>'


@dataclass(frozen=True)
class Place:
    """A point of the plane of cost and latency. efficient: nothing else is better in both."""

    name: str
    latency_ms: float
    cost_usd: float
    efficient: bool


def plane(places: Sequence[Place], label: str, width: int, key: str) -> str:
    """Cost per good request over latency: lower left is better; efficient points are filled and joined."""
    if not places:
        return ""
    x = _padded([place.latency_ms for place in places])
    y = _padded([place.cost_usd for place in places])
    frame = Frame(width, 292, x, y, left=74)
    body = frame.grid("USD per good request", label, plain, _dollars)
    best = sorted((place for place in places if place.efficient), key=lambda place: place.latency_ms)
    if len(best) > 1:
        body += frame.line([(place.latency_ms, place.cost_usd) for place in best], 'class="line" stroke="var(--c0)"')
    taken: list[tuple[float, float]] = []
    for place in sorted(places, key=lambda place: not place.efficient):
        left, top = frame.point(place.latency_ms, place.cost_usd)
        fill = "var(--c0)" if place.efficient else "none"
        body += f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" fill="{fill}" stroke="var(--c0)" stroke-width="2"/>'
        end = left > width * 0.7
        at = top - 8
        if all(abs(at - other) > 13 or abs(left - beside) > 60 for beside, other in taken):
            taken.append((left, at))
            body += (
                f'<text class="name" x="{left + (-8 if end else 8):.1f}" y="{at:.1f}" '
                f'text-anchor="{"end" if end else "start"}">{escape(cut(place.name, width * 0.4))}</text>'
            )
    said = "; ".join(
        f"{place.name}: {figures.usd(place.cost_usd)} at {figures.ms(place.latency_ms)} ms"
        + (", efficient" if place.efficient else "")
        for place in places
    )
    return frame.svg(body, "Cost per good request against latency", said, key)


def _padded(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if high / max(low, 1e-12) > 12:
        return log_axis(low, high)
    return linear_axis(high * 1.05 or 1.0, 4)


def _dollars(value: float) -> str:
    return f"{value:.3g}"


@dataclass(frozen=True)
class Pair:
    """A model's figure alone and in the mix."""

    name: str
    alone: Estimated | None
    mix: Estimated | None


def pairs(rows: Sequence[Pair], label: str, text: Callable[[float], str], width: int, key: str) -> str:
    """Hollow: alone; filled: in the mix; the line between them is what the others cost."""
    told = [(index, row) for index, row in enumerate(rows) if row.alone and row.mix]
    values = [found.value for _, row in told for found in (row.alone, row.mix) if found and found.value > 0]
    if not values:
        return ""
    step, top, bottom = 36, 8, 34
    height = top + step * len(told) + bottom
    axis = log_axis(min(values) * 0.95, max(values) * 1.05)
    frame = Frame(width, height, axis, Axis(0, 1, ()), left=10, bottom=bottom)
    body = frame.uprights(top) + frame.grid("", f"{label} (log)", plain, plain)
    for number, (index, row) in enumerate(told):
        assert row.alone is not None and row.mix is not None
        y = top + step * number + 26
        (a, _), (b, _) = frame.point(row.alone.value, 0), frame.point(row.mix.value, 0)
        colour = f"var(--c{index % SERIES})"
        body += (
            f'<text class="name" x="{frame.left}" y="{y - 12}">{escape(cut(row.name, width * 0.5))}</text>'
            f'<g><title>{escape(row.name)}: alone {text(row.alone.value)}, in the mix {text(row.mix.value)}</title>'
            f'<line class="whisker" stroke="{colour}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{a:.1f}" cy="{y}" r="5" fill="var(--card)" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{b:.1f}" cy="{y}" r="5" fill="{colour}"/></g>'
        )
    said = "; ".join(
        f"{row.name}: alone {text(row.alone.value)}, in the mix {text(row.mix.value)}"
        for _, row in told
        if row.alone and row.mix
    )
    return frame.svg(body, f"{label}, each model alone and in the mix", said, key)
