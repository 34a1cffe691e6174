"""The price book: what proprietary and hosted APIs charge per token, with origin and date.

Prices are typed in from published lists; the book says from where. Nothing here asks the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ConfigError, nearest


@dataclass(frozen=True)
class ApiPrice:
    """USD per token of one API model. `cached_input` is None where the vendor has no cache price."""

    name: str
    input: float
    output: float
    cached_input: float | None

    def cost_usd(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """What this traffic would cost there, USD. `cached_tokens` are part of `prompt_tokens`."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = prompt_tokens - cached_tokens
        return fresh * self.input + cached_tokens * cached_price + completion_tokens * self.output


@dataclass(frozen=True)
class PriceBook:
    """Named prices and where they come from."""

    origin: str
    prices: dict[str, ApiPrice]

    def __getitem__(self, name: str) -> ApiPrice:
        if name not in self.prices:
            near = nearest(name, self.prices)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(self.prices))}"
            raise ConfigError(f"no price for {name!r} in the price book; {hint}")
        return self.prices[name]


def load(path: Path) -> PriceBook:
    """Read a price book: {"origin": text, "models": {name: {"input_cost_per_token": USD, …}}}.

    Entries without both an input and an output price are left out: they cannot price a request.
    Raises: ConfigError when the file cannot be read or is not such JSON.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        prices = {
            name: ApiPrice(name, row["input_cost_per_token"], row["output_cost_per_token"],
                           row.get("cache_read_input_token_cost"))
            for name, row in raw["models"].items()
            if row.get("input_cost_per_token") is not None and row.get("output_cost_per_token") is not None
        }
        return PriceBook(str(raw["origin"]), prices)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a price book ({type(error).__name__}: {error}); "
                          'it must be JSON {"origin": …, "models": {name: {"input_cost_per_token": …}}}') from error
