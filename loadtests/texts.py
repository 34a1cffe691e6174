"""Plain English text of a wanted length, deterministic in its seed.

Text is made of common words from a list in this module, so that a run needs no data set and no network. Sentences are
picked from a fixed stock, because a prompt of 20,000 words must not hold up the stamps of other streams: a pick costs
a tenth of making the sentence.
"""

from __future__ import annotations

from functools import cache

import numpy as np

WORDS = tuple(
    """
    the a this that each some every no our their one two three first last next same other such more most
    few time day year week people way water work world life hand part place case point house home room
    city country company number group problem fact question answer reason idea plan order system service
    model report story letter book page word line name side end head door road river tree garden light
    morning evening night winter summer market price money value cost team member friend family child
    parent teacher student doctor driver is was has had can could will would should may might must does
    did makes made takes took gives gave finds found keeps kept tells told asks asked needs wants looks
    seems feels shows moves lives brings writes reads good new old long great little own right big high
    small large early young important public able clear simple open strong whole free ready warm cold
    quiet quick slow sure best better hard easy of to in for on with at by from about into over after
    under between through during before without against and or but if when while because then so than as
    also only just even still again always never often here there now today once soon together perhaps
    almost enough quite rather very well
    """.split()
)

_STOCK = 4096
_SHORTEST, _LONGEST = 6, 14
_MEAN = (_SHORTEST + _LONGEST) / 2


def text_of(words: int, seed: int) -> str:
    """`words` words in sentences, at least one; equal for equal arguments."""
    wanted = max(1, words)
    rng = np.random.default_rng(seed)
    stock, lengths = _stock()
    parts: list[str] = []
    while wanted > 0:
        picks = rng.integers(0, _STOCK, size=max(4, int(wanted / _MEAN) + 1))
        upto = np.cumsum(lengths[picks])
        whole = int(np.searchsorted(upto, wanted, side="right"))
        parts += [stock[pick] for pick in picks[:whole]]
        wanted -= int(upto[whole - 1]) if whole else 0
        if whole < len(picks) and wanted > 0:
            # The last sentence is cut to the wanted length.
            cut = stock[picks[whole]].removesuffix(".").split(" ")[:wanted]
            parts.append(" ".join(cut) + ".")
            break
    return " ".join(parts)


@cache
def _stock() -> tuple[tuple[str, ...], np.ndarray]:
    """Sentences and their lengths in words; the same in every process."""
    rng = np.random.default_rng(20261125)
    lengths = rng.integers(_SHORTEST, _LONGEST, size=_STOCK, endpoint=True)
    picks = iter(rng.integers(0, len(WORDS), size=int(lengths.sum())))
    sentences = (" ".join(WORDS[next(picks)] for _ in range(length)) for length in lengths)
    return tuple(f"{sentence.capitalize()}." for sentence in sentences), lengths
