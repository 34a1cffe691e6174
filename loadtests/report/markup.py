"""The few pieces of markup that several cards share. Texts come in escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from loadtests.report.charts import swatch


def card(title: str, body: str, key: str = "") -> str:
    """A section with a heading that links and screen readers can jump to."""
    key = key or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f'<section class="card" id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{title}</h2>{body}</section>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with the CSS variable of their colour."""
    items = (f'<li><i style="background:var({colour})"></i>{name}</li>' for name, colour in entries)
    return f'<ul class="legend">{"".join(items)}</ul>'


def series_legend(names: Iterable[tuple[int, str]], more: str = "") -> str:
    """Names of lines, each with its line as it is drawn."""
    items = "".join(f"<li>{swatch(index)}{name}</li>" for index, name in names)
    return f'<ul class="legend">{items}{more}</ul>'


def muted(text: str) -> str:
    return f'<p class="muted">{text}</p>'


def details(summary: str, body: str) -> str:
    """What is folded away until someone asks for it."""
    return f"<details><summary>{summary}</summary>{body}</details>" if body else ""


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Names and values side by side."""
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in items)
    return f'<dl class="facts">{pairs}</dl>'


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    last_is_sum: bool = False,
    text_columns: Sequence[int] = (),
) -> str:
    """A table that scrolls sideways on its own where the page is too narrow, by keyboard too. The first cell of a row
    is its head.
    """

    def kind(column: int) -> str:
        return ' class="text"' if column in text_columns else ""

    head = "".join(f'<th scope="col"{kind(column)}>{text}</th>' for column, text in enumerate(heads))
    body = ""
    for number, row in enumerate(rows):
        total = ' class="sum"' if last_is_sum and number == len(rows) - 1 else ""
        cells = "".join(f"<td{kind(column)}>{text}</td>" for column, text in enumerate(row) if column)
        body += f'<tr{total}><th scope="row">{row[0]}</th>{cells}</tr>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
