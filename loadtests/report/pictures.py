"""The charts of latencies and break-even: distributions, percentiles with their intervals, rulers of utilisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loadtests.report import figures
from loadtests.report.charts import (
    SERIES,
    Axis,
    Frame,
    cut,
    fitting_axis,
    log_axis,
    plain,
    series_style,
    svg,
    text_width,
)
from loadtests.report.model import Estimated, Latency


def cdf(curves: Mapping[str, Latency], limits: Mapping[str, float], label: str, width: int, key: str) -> str:
    """Share of requests at or below x milliseconds, a curve per model; objectives as upright lines. "" of nothing."""
    drawn = {index: (name, found) for index, (name, found) in enumerate(curves.items()) if found.cdf}
    values = [value for _, found in drawn.values() for value, _ in found.cdf]
    if not values:
        return ""
    high = max([*values, *(limit for limit in limits.values() if limit <= 4 * max(values))])
    # Two in a hundred that came in one piece with the next (no time between them) must not squeeze all others.
    low = min(next(value for value, share in found.cdf if share >= 0.02) for _, found in drawn.values())
    x = fitting_axis(low, high, width)
    frame = Frame(width, 248, x, Axis(0, 1, (0, 0.25, 0.5, 0.75, 1)))
    body = frame.grid(
        "share of requests", f"{label}, ms" + (" (log)" if x.log else ""), plain, lambda share: f"{share:.0%}"
    )
    marks = sorted({limit for limit in limits.values() if limit <= x.high})
    body += "".join(frame.upright(limit, "limit", f"SLO {limit:g}") for limit in marks)
    for index, (_, found) in drawn.items():
        steps = [(found.cdf[0][0], 0.0)]
        for (value, share), (following, _) in zip(found.cdf, [*found.cdf[1:], (x.high, 1.0)], strict=True):
            steps += [(value, share), (following, share)]
        body += frame.line(steps, series_style(index))
    said = "; ".join(
        f"{name}: half within {figures.ms(found.p50.value)} ms, 99% within {figures.ms(found.p99.value)} ms"
        for name, found in drawn.values()
        if found.p50 and found.p99
    )
    return frame.svg(body, f"Distribution of {label} per model", said, key)


@dataclass(frozen=True)
class Spread:
    """A row of percentiles: a model's, with its objective in the same unit (ms) if it has one."""

    name: str
    found: Latency
    limit: float | None


_MARKS = (("p50", "circle"), ("p90", "diamond"), ("p99", "square"))


def percentiles(rows: Sequence[Spread], label: str, width: int, key: str) -> str:
    """p50, p90 and p99 of each model with their intervals as bars, and where the objective stands."""
    told = [(index, row) for index, row in enumerate(rows) if row.found.p50]
    values = [v for _, row in told for mark, _ in _MARKS for v in _ends(getattr(row.found, mark), row.found.max)]
    values += [row.limit for _, row in told if row.limit]
    if not values:
        return ""
    step, top, bottom = 40, 8, 34
    height = top + step * len(told) + bottom
    axis = log_axis(max(min(values), 1e-3), max(max(values), 2e-3))
    frame = Frame(width, height, axis, Axis(0, 1, ()), left=10, bottom=bottom)
    body = frame.uprights(top) + frame.grid("", f"{label}, ms (log)", plain, plain)
    for number, (index, row) in enumerate(told):
        y = top + step * number + 28
        body += f'<text class="name" x="{frame.left}" y="{y - 14}">{escape(cut(row.name, width * 0.6))}</text>'
        if row.limit:
            x, _ = frame.point(row.limit, 0)
            side, anchor = (x - 5, "end") if x > width * 0.75 else (x + 5, "start")
            body += (
                f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 10}" y2="{y + 10}"/>'
                f'<text x="{side:.1f}" y="{y - 14}" text-anchor="{anchor}">SLO {row.limit:g}</text>'
            )
        for mark, shape in _MARKS:
            body += _mark(frame, getattr(row.found, mark), row.found.max, y, shape, index, mark)
    said = "; ".join(
        f"{row.name}: " + ", ".join(f"{mark} {_said(getattr(row.found, mark))}" for mark, _ in _MARKS)
        for _, row in told
    )
    return frame.svg(body, f"Percentiles of {label} per model with 95% confidence intervals", said, key)


def _ends(found: Estimated | None, largest: float | None) -> list[float]:
    if found is None:
        return []
    return [value for value in (found.low or found.value, found.value, found.high or largest) if value]


def _mark(
    frame: Frame, found: Estimated | None, largest: float | None, y: float, shape: str, index: int, name: str
) -> str:
    if found is None:
        return ""
    colour = f"var(--c{index % SERIES})"
    left, _ = frame.point(found.low if found.low is not None else found.value, 0)
    right, _ = frame.point(found.high if found.high is not None else max(found.value, largest or 0.0), 0)
    # an end that is not known is drawn open
    kind = "whisker" if found.low is not None and found.high is not None else "whisker open"
    x, _ = frame.point(found.value, 0)
    forms = {
        "circle": f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{colour}"/>',
        "diamond": f'<path d="M{x:.1f} {y - 6}l6 6-6 6-6-6z" fill="{colour}"/>',
        "square": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9" fill="{colour}"/>',
    }
    return (
        f'<g><title>{name} {_said(found)}</title><line class="{kind}" stroke="{colour}" x1="{left:.1f}" '
        f'x2="{max(right, left + 1):.1f}" y1="{y}" y2="{y}"/>{forms[shape]}</g>'
    )


def _said(found: Estimated | None) -> str:
    return "not known" if found is None else f"{figures.ms(found.value)} ms ({figures.span(found, figures.ms)})"


@dataclass(frozen=True)
class Mark:
    """A comparator on a ruler: its name, and the utilisation from which on the fleet is cheaper; above 1: never."""

    name: str
    at: float | None


def ruler(marks: Sequence[Mark], today: float | None, title: str, width: int, key: str) -> str:
    """Utilisation from little to full on a logarithmic ruler, a row per comparator: cheaper to the right."""
    known = [mark.at for mark in marks if mark.at] + ([today] if today else [])
    low = min([0.01, *(value for value in known if value > 0)])
    axis = log_axis(max(low * 0.8, 1e-7), 1.0)
    step, top, bottom = 42, 16 if today else 2, 34
    height = top + step * len(marks) + bottom
    frame = Frame(width, height, axis, Axis(0, 1, ()), left=10, bottom=bottom)
    end, _ = frame.point(1.0, 0)
    start, _ = frame.point(axis.low, 0)
    body = frame.grid("", "utilisation (log)", _percent, _percent)
    for number, mark in enumerate(marks):
        y = top + step * number + 30
        never = mark.at is None or mark.at > 1
        told = "never cheaper" if never else f"cheaper from {_percent(mark.at or 0)}"
        body += (
            f'<text class="name" x="{start:.1f}" y="{y - 9}">{escape(cut(mark.name, width - text_width(told) - 40))}'
            f'</text><text class="name" x="{end:.1f}" y="{y - 9}" text-anchor="end">{told}</text>'
            f'<rect class="track-bg" x="{start:.1f}" y="{y - 4}" width="{end - start:.1f}" height="8"/>'
        )
        if not never:
            x, _ = frame.point(max(mark.at or 0, axis.low), 0)
            body += f'<rect class="cheaper" x="{x:.1f}" y="{y - 4}" width="{max(end - x, 2):.1f}" height="8"/>'
    if today:
        x, _ = frame.point(min(today, 1.0), 0)
        side, anchor = (x - 6, "end") if x > width * 0.6 else (x + 6, "start")
        body += (
            f'<line class="today" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - bottom}"/>'
            f'<text class="name" x="{side:.1f}" y="13" text-anchor="{anchor}">this run {_percent(today)}</text>'
        )
    said = "; ".join(
        f"{mark.name}: " + ("never cheaper" if mark.at is None or mark.at > 1 else f"cheaper from {_percent(mark.at)}")
        for mark in marks
    )
    said += f". This run: {_percent(today)}" if today else ""
    return svg(width, height, body, title, said, key)


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
