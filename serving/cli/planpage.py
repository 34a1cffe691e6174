"""A plan as one page: dollars by hour, and what other loads and prices would change. One file, no script, offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from serving.costs import svg
from serving.costs.figures import dollars
from serving.costs.style import CSS

_WIDE, _NARROW, _COLOURS = 1040, 330, 5
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(told: dict[str, Any]) -> str:
    """The whole file's text."""
    title = f"A plan for the fleet {told['fleet']}"
    cards = "".join((_models(told), _hours(told), *(_loads(name, m) for name, m in told["models"].items())))
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}"><title>{escape(title)}</title>'
            f"<style>{CSS}</style></head><body><main><h1>{escape(title)}</h1>"
            f'<p class="sub">for {escape(told["trace"])}, {told["times"]:g} times its load · estimates by engine '
            f"profiles, no measurement</p>{cards}</main></body></html>\n")


def _models(told: dict[str, Any]) -> str:
    rows = []
    for name, m in told["models"].items():
        kept = f'<span class="{"good" if m["kept"] else "bad"}">{m["attainment"]:.1%}</span>'
        rows.append([escape(name) + f"<small>{escape(m['variant'])}, engine profile {escape(m['profile']['origin'])}"
                     "</small>", _range(m["replicas"]), _range(m["gpus"]), kept, f"{m['objective']:.0%}",
                     f"{m['gpu_hours']:,.1f}", dollars(m["usd_per_hour"]), dollars(m["usd"])])
    return _card("What it takes", _table("The plan by model", [
        "Model", "Replicas", "GPUs", "Keeps", "Goal", "GPU-hours", "An hour", "In all"], rows))


def _hours(told: dict[str, Any]) -> str:
    names = sorted(told["models"], key=lambda n: -told["models"][n]["usd"])
    shown, rest = names[:_COLOURS - 1], names[_COLOURS - 1:]
    series = [*shown, *(["others"] if rest else [])]
    bars = []
    for hour in range(max(len(told["models"][n]["hours"]) for n in names)):
        def usd(name: str, at: int = hour) -> float:
            hours = told["models"][name]["hours"]
            return hours[at]["usd"] if at < len(hours) else 0.0

        parts = [usd(n) for n in shown] + ([sum(usd(n) for n in rest)] if rest else [])
        bars.append(svg.Bar(f"hour {hour:02d}", tuple(parts)))
    drawn = _both(lambda width, key: svg.stacked_columns(bars, series, width, "USD by hour and model", key), "hours")
    rows = [[f"{h['hour']}", escape(n), f"{h['replicas']:.1f}", f"{h['gpus']:.1f}", dollars(h["usd"]),
             f"{h['requests']:,}", "–" if h["attainment"] is None else f"{h['attainment']:.1%}"]
            for n in names for h in told["models"][n]["hours"]]
    table = _table("Hours of the traffic", ["Hour", "Model", "Replicas", "GPUs", "USD", "Requests", "Keep all"], rows)
    return _card("Hour by hour", svg.legend({n: f"var(--b{i})" for i, n in enumerate(series)}) + drawn
                 + f"<details><summary>The same as a table</summary>{table}</details>")


def _loads(name: str, m: dict[str, Any]) -> str:
    loads, prices = m["sensitivity"]["load"], m["sensitivity"]["price"]
    bars = [svg.Bar(f"load x {row['times']:g}: {row['attainment']:.1%} keep all", (row["usd"],)) for row in loads]
    drawn = _both(lambda width, key: svg.stacked_rows(bars, ["USD"], width, f"USD of {name} by load", key),
                  f"load-{escape(name)}")
    rows = [[f"x {row['times']:g}", f"{row['attainment']:.1%}", f"{row['gpu_hours']:,.1f}", dollars(row["usd"]),
             f"x {price['times']:g}", dollars(price["usd"])] for row, price in zip(loads, prices, strict=True)]
    return _card(f"If {escape(name)} is asked more, or prices change", drawn + _table(
        "The same plan, unchanged", ["Load", "Keep all", "GPU-hours", "USD", "Prices", "USD"], rows), escaped=True)


def _range(of: dict[str, int]) -> str:
    return f"{of['min']}" if of["min"] == of["max"] else f"{of['min']} to {of['max']}"


def _both(draw: Callable[[int, str], str], key: str) -> str:
    return f'<div class="wide">{draw(_WIDE, f"{key}-w")}</div><div class="narrow">{draw(_NARROW, f"{key}-n")}</div>'


def _card(title: str, body: str, escaped: bool = False) -> str:
    return f'<section class="card"><h2>{title if escaped else escape(title)}</h2>{body}</section>'


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
                   for row in rows)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>'
            f"{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
