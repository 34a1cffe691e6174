"""The few pieces of markup that several cards share. Texts come in escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{title}</h2>{body}</section>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with the CSS variable of their colour."""
    items = (f'<span><i style="background:var({colour})"></i>{name}</span>' for name, colour in entries)
    return f'<div class="legend">{"".join(items)}</div>'


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    last_is_sum: bool = False,
    text_columns: Sequence[int] = (),
) -> str:
    """A table that scrolls sideways on its own where the page is too narrow."""

    def cell(tag: str, column: int, content: str) -> str:
        kind = ' class="text"' if column in text_columns else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    head = "".join(cell("th", column, content) for column, content in enumerate(heads))
    body = ""
    for number, row in enumerate(rows):
        kind = ' class="sum"' if last_is_sum and number == len(rows) - 1 else ""
        body += f"<tr{kind}>{''.join(cell('td', column, content) for column, content in enumerate(row))}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
