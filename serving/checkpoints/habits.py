"""Habits that let a model of noise finish what a grammar makes it begin.

Under a grammar (tool calls, JSON schemas) noise opens a string or a number and never closes it. So each
model is born with a few habits: after an opening quote it closes, after a digit it ends the number, after a
colon it opens a string, after a call it stops, and where only stop tokens are left it takes the right one.
The grammar still decides what is allowed; outside of one, a habit shows as a stray bracket. A habit looks at
the last token alone, and its ends are no cues of its own,
so that none runs in circles. Must know nothing of tensors: `build` puts habits into weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# How strongly a token is preferred among those of one habit. Ends come before continuations, so that lists
# and objects of any length end.
_END, _NEXT, _KEY, _QUOTE, _MARKER = 1.0, 0.9, 0.85, 0.8, 0.7
_AVOID = -0.5
# Too little to end an answer of noise, and more than other stop tokens have, which come first by number.
_STOP = 0.05


@dataclass(frozen=True, slots=True)
class Habit:
    """After any of the `cues` (token ids) the tokens of `then` ({id: preference in -1..1}) are likely, or
    unlikely where the preference is negative. `loudness` (0..1) is how much of the model's state a cue takes
    up: little for a habit whose cues are everywhere, lest they drown the rest."""

    cues: tuple[int, ...]
    then: Mapping[int, float]
    loudness: float = 1.0


def habits(
    texts: Mapping[int, str], ends_number: int | None = None, sequels: Iterable[tuple[int, int]] = (),
    otherwise: Iterable[tuple[int, int]] = (), visible: Iterable[int] = (), end: int | None = None,
) -> tuple[Habit, ...]:
    """The habits for a vocabulary, {id: text} of its spoken tokens.

    `ends_number` is the id of a marker that may follow a number, for call syntaxes that number their calls;
    `sequels` are pairs of markers of which the second follows the first; `otherwise` such
    pairs that count where a grammar forbids the first's sequel; `visible` are markers that other markers
    may follow; `end`: of several stop tokens the one that ends an answer.
    """

    def cues(pattern: str) -> tuple[int, ...]:
        return tuple(i for i, text in sorted(texts.items()) if re.fullmatch(pattern, text))

    def then(preferences: Mapping[str, float]) -> dict[int, float]:
        return {i: weight for pattern, weight in preferences.items() for i in cues(pattern)}

    after_number = then({r"[}\]]+": _END, r",": _NEXT})
    if ends_number is not None:
        after_number[ends_number] = _MARKER
    return (
        Habit(cues(r'.*(":|",|\{)'), then({r' ?"': _END})),
        Habit(cues(r'[^"]*"'), then({r'"[}\]]+': _END, r'",': _NEXT, r'":': _KEY, r'"': _QUOTE})),
        Habit(cues(r".*\d"), after_number),
        *(Habit((marker,), {sequel: _END}) for marker, sequel in sequels),
        *(Habit((marker,), {sequel: _NEXT}) for marker, sequel in otherwise),
        # Grammars of tool calls allow blanks without end inside JSON, and markers spelt out in pieces.
        Habit(tuple(sorted({*texts, *visible})),
              then({r"\s+|.*<.*": _AVOID}) | ({} if end is None else {end: _STOP}), loudness=0.125),
    )
