"""How many tokens another tokenizer counts where ours counts one: what a comparison's token_ratio is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

Count = Callable[[str], int]


@dataclass(frozen=True)
class TokenRatio:
    """Tokens of the same text by two tokenizers."""

    ours: int
    theirs: int

    @property
    def ratio(self) -> Decimal:
        """Theirs per one of ours, to four decimals."""
        return (Decimal(self.theirs) / self.ours).quantize(Decimal("0.0001"), ROUND_HALF_EVEN)


def measure(text: str, ours: Count, theirs: Count) -> TokenRatio:
    """Count the text by both. It should be like the traffic in language and kind: code, prose and tables differ.

    Raises: ValueError when either counts nothing.
    """
    found = TokenRatio(ours(text), theirs(text))
    if found.ours <= 0 or found.theirs <= 0:
        raise ValueError(f"cannot tell a ratio from {found.ours} and {found.theirs} tokens")
    return found
