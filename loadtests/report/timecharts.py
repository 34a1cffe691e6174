"""The charts of a run over time: panels one below the other on one clock, warm-up and stages marked in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.report.charts import SERIES, Axis, Frame, Point, both, linear_axis, plain, time_axis


@dataclass(frozen=True)
class Clock:
    """What all panels share: the run's length, what was not measured, and when stages begin. Run seconds."""

    length_s: float
    unmeasured: tuple[tuple[float, float], ...] = ()
    stages: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One chart. lines: by the index of their colour; counts: bars, such as failures, in the colour of errors.

    label: what it shows with its unit. highest: of the axis, where the unit has one.
    """

    key: str
    label: str
    lines: Mapping[int, Sequence[Point]]
    said: str
    steps: bool = False
    bars: Sequence[tuple[float, float, float]] = ()
    highest: float | None = None
    text: Callable[[float], str] = plain


def panels(shown: Sequence[Panel], clock: Clock) -> str:
    """All panels that have a value; the last one carries the time axis."""
    kept = [panel for panel in shown if _values(panel)]
    drawn = []
    for number, panel in enumerate(kept):
        last = number == len(kept) - 1

        def draw(width: int, key: str, panel: Panel = panel, last: bool = last) -> str:
            return _panel(panel, clock, width, key, last)

        drawn.append(both(draw, panel.key))
    return "".join(drawn)


def _panel(panel: Panel, clock: Clock, width: int, key: str, last: bool) -> str:
    high = panel.highest if panel.highest is not None else max(_values(panel))
    y = linear_axis(high, 3)
    bottom = 34 if last else 8
    frame = Frame(width, 100 + bottom, time_axis(clock.length_s, width), Axis(0, y.high, y.ticks), bottom=bottom)
    body = "".join(frame.area(a, b, "warmup", "not measured") for a, b in clock.unmeasured)
    body += frame.grid(panel.label, "seconds of the run" if last else "", plain, panel.text)
    # the texts of stages stand in the first panel only, and only where there is room
    body += "".join(frame.upright(at, "stage") for at, _ in clock.stages if 0 < at < clock.length_s)
    for start, end, value in panel.bars:
        if value:
            left, top = frame.point(start, value)
            right, base = frame.point(end, 0)
            body += (
                f'<rect class="bad" x="{left:.1f}" y="{top:.1f}" width="{max(1.0, right - left - 1):.1f}" '
                f'height="{base - top:.1f}"/>'
            )
    for index, points in panel.lines.items():
        body += frame.broken_line(points, index, panel.steps)
    return frame.svg(body, panel.label, panel.said, key)


def _values(panel: Panel) -> list[float]:
    found = [value for points in panel.lines.values() for _, value in points if value is not None]
    return found + [value for _, _, value in panel.bars]


def bins(values: Sequence[float | None], size: float, per_second: bool) -> list[Point]:
    """Values of bins as points at the bins' middles; counts become rates."""
    scale = 1 / size if per_second else 1.0
    return [((n + 0.5) * size, None if value is None else value * scale) for n, value in enumerate(values)]


def colour(index: int) -> str:
    """The CSS colour of a series."""
    return f"var(--c{index % SERIES})"
