"""The price book of APIs: what proprietary and hosted models charge per token, with origin and date, and what our
traffic would have cost there.

Prices are typed in from published lists; the book says from where. Nothing here asks the network. Prices are exact
decimals and amounts integer nano-USD, because they are summed over millions of requests.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.errors import ConfigError, nearest
from serving.fleet.costspecs import Role
from serving.fleet.money import NANO
from serving.fleet.records import Tokens

_INPUT, _OUTPUT, _CACHED = "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"
_BATCH_INPUT, _BATCH_OUTPUT = "input_cost_per_token_batches", "output_cost_per_token_batches"


@dataclass(frozen=True)
class ApiPrice:
    """USD per token of one API model. None: the vendor has no cache price, or no batch prices."""

    name: str
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    batch_input: Decimal | None = None
    batch_output: Decimal | None = None

    @property
    def has_batch(self) -> bool:
        """Whether the API has batch prices."""
        return self.batch_input is not None and self.batch_output is not None


@dataclass(frozen=True)
class Comparison:
    """One API that our traffic is held against.

    `name`: as ledger and reports call it. `token_ratio`: tokens that the API counts for one of ours. `batch`: at its
    batch prices. What an API asks for writing to its cache is left out, in the API's favour.
    Raises: ConfigError when batch prices are asked for and there are none.
    """

    name: str
    role: Role
    price: ApiPrice
    token_ratio: Decimal = Decimal(1)
    token_ratio_source: str = ""
    batch: bool = False

    def __post_init__(self) -> None:
        if self.batch and not self.price.has_batch:
            raise ConfigError(f"{self.price.name!r} has no batch prices in the price book; remove batch: true, or "
                              f"compare with an API that has ({_BATCH_INPUT}, {_BATCH_OUTPUT})")

    @property
    def input(self) -> Decimal:
        """USD for one of our prompt tokens that is not cached there."""
        return self._per_token[0] * self.token_ratio

    @property
    def cached_input(self) -> Decimal:
        """USD for one of our prompt tokens that is cached; without a cache price what any other costs."""
        return self._per_token[1] * self.token_ratio

    @property
    def output(self) -> Decimal:
        """USD for one of our completion tokens."""
        return self._per_token[2] * self.token_ratio

    @property
    def _per_token(self) -> tuple[Decimal, Decimal, Decimal]:
        price = self.price
        if not self.batch or price.batch_input is None or price.batch_output is None:
            return price.input, price.input if price.cached_input is None else price.cached_input, price.output
        # vendors differ on whether both discounts add up; the better of the two is what every one of them grants
        cached = price.batch_input if price.cached_input is None else min(price.batch_input, price.cached_input)
        return price.batch_input, cached, price.batch_output

    @cached_property
    def _whole(self) -> tuple[int, int, int, int]:
        """Nano-USD per token of ours (prompt, cached, completion) as whole numbers of 1/last."""
        exact = [Fraction(price) * Fraction(self.token_ratio) * NANO for price in self._per_token]
        parts = math.lcm(*(price.denominator for price in exact))
        fresh, cached, output = (int(price * parts) for price in exact)
        return fresh, cached, output, parts

    def nanousd(self, tokens: Tokens) -> int:
        """What these tokens, as we count them, would have cost there: exact, then rounded half to even, nano-USD."""
        fresh, cached, output, parts = self._whole
        amount = (tokens.prompt - tokens.cached) * fresh + tokens.cached * cached + tokens.completion * output
        whole, rest = divmod(amount, parts)
        return whole + (2 * rest > parts or (2 * rest == parts and whole % 2 == 1))


@dataclass(frozen=True)
class PriceBook:
    """Named prices and where they come from. `version`: date and a hash of the content, shown wherever a price counts.

    `unpriced`: models of the book that cannot price a request, and why not.
    """

    origin: str
    prices: dict[str, ApiPrice]
    version: str
    unpriced: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ApiPrice:
        if name not in self.prices:
            raise ConfigError(self.missing(name))
        return self.prices[name]

    def missing(self, name: str) -> str:
        """Why there is no such price, and what there is, as text."""
        near = nearest(name, self.prices)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(self.prices)) or 'none'}"
        if name in self.unpriced:
            return f"{name!r} stands in the price book but {self.unpriced[name]}; {hint}"
        return f"no price for {name!r} in the price book; {hint}"


def load(path: Path) -> PriceBook:
    """Read a price book. Raises: ConfigError when the file cannot be read or is no price book."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_book(str(path), error) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> PriceBook:
    """A price book from text: {"origin": text, "date": text, "models": {name: {"input_cost_per_token": USD, …}}}.

    Entries without both an input and an output price cannot price a request and are set apart; so are those whose input
    costs 0, because a price that is not known and one that is nothing look the same.
    Raises: ConfigError when it is not such JSON or a price is not one.
    """
    try:
        raw = json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_no_twice)
        models = {str(model): dict(row) for model, row in raw["models"].items()}
        origin = str(raw["origin"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_book(name, error) from error
    prices: dict[str, ApiPrice] = {}
    unpriced: dict[str, str] = {}
    for model, row in models.items():
        of = {key: _usd(row.get(key), f"{name}: {model}: {key}")
              for key in (_INPUT, _OUTPUT, _CACHED, _BATCH_INPUT, _BATCH_OUTPUT)}
        given, made = of[_INPUT], of[_OUTPUT]
        if given is None or made is None:
            unpriced[model] = f"has no {_OUTPUT if given is not None else _INPUT}"
        elif given == 0:
            unpriced[model] = f"its {_INPUT} is 0, which may as well mean that no one knows it"
        else:
            prices[model] = ApiPrice(model, given, made, of[_CACHED], of[_BATCH_INPUT], of[_BATCH_OUTPUT])
    return PriceBook(origin, prices, _version(str(raw.get("date", "")) or origin, text), unpriced)


def _usd(value: object, where: str) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value < 0:
        raise ConfigError(f"{where} is {value!s}; a price is a number of USD per token, 0 or above")
    return Decimal(value)


def _version(dated: str, text: str) -> str:
    date = re.search(r"\d{4}-\d{2}-\d{2}", dated)
    return f"{date.group() if date else 'undated'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return found


def _no_book(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"{name}: not a price book ({type(error).__name__}: {error}); it must be JSON "
                       f'{{"origin": …, "models": {{name: {{"{_INPUT}": …}}}}}}')
