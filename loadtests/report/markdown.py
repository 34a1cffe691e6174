"""Pieces of Markdown (GitHub's flavour). Everything that came from outside is made harmless here. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~])")


def plain_text(text: str) -> str:
    """On one line, without anything that would be markup."""
    return " ".join(text.split())


def md(text: str) -> str:
    """Text that shows as it is."""
    # Entities rather than backslashes where a reader that knows no Markdown would see a tag or a name.
    shown = _SPECIAL.sub(r"\\\1", plain_text(text).replace("&", "&amp;"))
    return shown.replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;&#8203;")


def bullets(texts: Iterable[str]) -> list[str]:
    """A list and the empty line after it; [] of nothing."""
    lines = [f"- {md(text)}" for text in texts]
    return [*lines, ""] if lines else []


def md_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, its first column to the left, and the empty line after it."""
    rule = ["---" if number < 1 else "---:" for number in range(len(heads))]
    body = [[md(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in ([md(head) for head in heads], rule, *body)] + [""]
