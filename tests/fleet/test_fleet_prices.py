"""The API price book and what our traffic would have cost there."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from fleet_samples import PRICES
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigError
from serving.fleet import prices
from serving.fleet.prices import ApiPrice, Comparison
from serving.fleet.records import Tokens
from serving.fleet.tokenratio import measure

SHIPPED = Path(__file__).parents[2] / "deployments/prices/api.json"


def book(folder: Path, content: object) -> Path:
    path = folder / "book.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def compared(name: str, tokens: Tokens, **changes: object) -> int:
    found = prices.parse(json.dumps(PRICES), "book.json")
    return Comparison(name, "frontier", found[name], **changes).nanousd(tokens)  # type: ignore[arg-type]


def test_a_request_is_priced_with_its_cached_part() -> None:
    # 60 fresh at 1000 nano-USD, 40 cached at 100, 10 out at 4000
    assert compared("api-one", Tokens(100, 40, 10)) == 60_000 + 4_000 + 40_000
    # without a cache price the cached part costs as much as the rest
    assert compared("api-two", Tokens(100, 40, 10)) == 200_000 + 80_000


def test_batch_prices_count_where_they_are_asked_for() -> None:
    # the cached part at the cache price, which is below the batch one
    assert compared("api-one", Tokens(100, 40, 10), batch=True) == 60 * 500 + 40 * 100 + 10 * 2_000
    with pytest.raises(ConfigError, match=r"'api-two' has no batch prices.*remove batch: true"):
        compared("api-two", Tokens(1, 0, 0), batch=True)


def test_without_a_cache_price_a_batch_pays_the_batch_price_for_it() -> None:
    price = ApiPrice("x", Decimal("4e-9"), Decimal("8e-9"), None, Decimal("2e-9"), Decimal("4e-9"))
    assert Comparison("x", "frontier", price, batch=True).nanousd(Tokens(10, 5, 1)) == 20 + 4


def test_a_cached_token_in_a_batch_costs_no_more_than_another_one() -> None:
    price = ApiPrice("x", Decimal("4e-9"), Decimal("8e-9"), Decimal("3e-9"), Decimal("2e-9"), Decimal("4e-9"))
    assert Comparison("x", "frontier", price, batch=True).nanousd(Tokens(10, 5, 1)) == 20 + 4


def test_the_other_tokenizers_count_goes_for_all_kinds_of_tokens() -> None:
    assert compared("api-one", Tokens(100, 40, 10), token_ratio=Decimal("1.25")) == 130_000
    one = Comparison("x", "frontier", prices.parse(json.dumps(PRICES), "b")["api-one"], Decimal("0.5"))
    assert (one.input, one.cached_input, one.output) == (Decimal("5e-7"), Decimal("5e-8"), Decimal("2e-6"))


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_side(tokens: int, nano: int) -> None:
    price = ApiPrice("x", Decimal("5e-10"), Decimal(0))
    assert Comparison("x", "frontier", price).nanousd(Tokens(tokens, 0, 0)) == nano


def test_a_price_is_the_decimal_that_was_written(tmp_path: Path) -> None:
    row = '{"input_cost_per_token": 3.88126e-07, "output_cost_per_token": 1.15E-7}'
    found = prices.load(book(tmp_path, f'{{"origin": "x", "models": {{"a": {row}}}}}'))["a"]
    assert (found.input, found.output) == (Decimal("0.000000388126"), Decimal("0.000000115"))
    # more digits than a float or Python's usual decimals hold
    whole = Comparison("a", "frontier", found, Decimal("1.00000000000000001")).nanousd(Tokens(10**20, 0, 0))
    assert whole == 38812600000000000388126


SOME = st.integers(0, 10**7)
TOKENS = st.builds(lambda cached, fresh, out: Tokens(cached + fresh, cached, out), SOME, SOME, SOME)
USD = st.decimals(0, "0.001", places=12, allow_nan=False)
PRICE = st.builds(lambda i, o, c: ApiPrice("x", i, o, min(c, i)), USD, USD, USD)
RATIO = st.decimals("0.1", 10, places=4, allow_nan=False)


@given(PRICE, TOKENS, RATIO)
def test_an_amount_is_the_exact_product_rounded_once(price: ApiPrice, tokens: Tokens, ratio: Decimal) -> None:
    exact = Fraction(ratio) * 10**9 * (
        (tokens.prompt - tokens.cached) * Fraction(price.input) + tokens.cached * Fraction(price.cached_input or 0)
        + tokens.completion * Fraction(price.output))
    assert Comparison("x", "frontier", price, ratio).nanousd(tokens) == round(exact)


@given(PRICE, TOKENS, st.integers(1, 50))
def test_so_many_times_the_price_is_so_many_times_the_amount(price: ApiPrice, tokens: Tokens, times: int) -> None:
    dearer = ApiPrice("x", price.input * times, price.output * times, (price.cached_input or 0) * times)
    one = Comparison("x", "frontier", price).nanousd(tokens)
    # each rounding is off by half a nano-dollar at most
    assert abs(2 * (Comparison("x", "frontier", dearer).nanousd(tokens) - times * one)) <= times + 1


@given(PRICE, TOKENS, RATIO)
def test_a_ratio_of_two_is_twice_the_tokens(price: ApiPrice, tokens: Tokens, ratio: Decimal) -> None:
    twice = Comparison("x", "frontier", price, 2 * ratio).nanousd(tokens)
    assert twice == Comparison("x", "frontier", price, ratio).nanousd(tokens + tokens)


@given(PRICE, TOKENS, RATIO)
def test_cached_tokens_never_cost_more(price: ApiPrice, tokens: Tokens, ratio: Decimal) -> None:
    of = Comparison("x", "frontier", price, ratio)
    assert 0 <= of.nanousd(tokens) <= of.nanousd(replace(tokens, cached=0))


@given(st.data(), TOKENS)
def test_in_the_shipped_book_discounts_are_discounts(data: st.DataObject, tokens: Tokens) -> None:
    price = data.draw(st.sampled_from(sorted(prices.load(SHIPPED).prices.values(), key=lambda p: p.name)))
    full = Comparison("x", "frontier", price)
    assert full.nanousd(tokens) <= full.nanousd(replace(tokens, cached=0))
    if price.has_batch:
        assert Comparison("x", "frontier", price, batch=True).nanousd(tokens) <= full.nanousd(tokens)


def test_the_shipped_book_is_dated_and_keeps_what_has_no_price_apart() -> None:
    found = prices.load(SHIPPED)
    assert found.version.startswith("2026-11-23-") and len(found.version) == 19
    assert len(found.prices) > 40 and sum(price.has_batch for price in found.prices.values()) >= 10
    assert not set(found.prices) & set(found.unpriced) and len(found.unpriced) == 3


def test_what_cannot_price_a_request_is_set_apart(tmp_path: Path) -> None:
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
    half = {"input_cost_per_token": 1e-6}
    found = prices.load(book(tmp_path, PRICES | {"models": PRICES["models"] | {"free": free, "half": half}}))
    assert set(found.prices) == {"api-one", "api-two"}
    assert found.unpriced == {"images": "has no input_cost_per_token", "half": "has no output_cost_per_token",
                              "free": "its input_cost_per_token is 0, which may as well mean that no one knows it"}
    with pytest.raises(ConfigError, match="'free' stands in the price book but its input_cost_per_token is 0"):
        found["free"]


def test_an_unknown_price_names_the_nearest(tmp_path: Path) -> None:
    found = prices.load(book(tmp_path, PRICES))
    assert found.origin == "made up"
    with pytest.raises(ConfigError, match="did you mean 'api-one'"):
        found["api-oen"]
    with pytest.raises(ConfigError, match="known: api-one, api-two"):
        found["zzz"]


@pytest.mark.parametrize("content", [
    "", "[]", "{}", '{"models": {}}', '{"origin": "x", "models": [1]}', '{"origin": "x", "models": {"a": 1}}',
    '{"origin": "x", "models": {"a": {"input_cost_per_token": NaN}}}', "[" * 100_000,
])
def test_what_is_no_price_book(content: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"book\.json: not a price book"):
        prices.load(book(tmp_path, content))


def test_a_book_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: not a price book"):
        prices.load(tmp_path / "none.json")


def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a' stands there twice"):
        prices.load(book(tmp_path, '{"origin": "x", "models": {"a": {}, "b": {}, "a": {}}}'))


@pytest.mark.parametrize("value", ["-1e-6", '"1e-6"', "true", "[]"])
@pytest.mark.parametrize("key", ["input_cost_per_token", "cache_read_input_token_cost",
                                 "output_cost_per_token_batches"])
def test_a_price_that_is_none_is_named_with_its_model(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"book\.json: gpt: {key} is .*; a price is a number of USD per token"):
        prices.load(book(tmp_path, f'{{"origin": "x", "models": {{"gpt": {{"{key}": {value}}}}}}}'))


def test_a_version_tells_date_and_content() -> None:
    def version(**changes: object) -> str:
        return prices.parse(json.dumps(PRICES | changes), "b").version

    assert version().startswith("undated-") and version(origin="a list of 2026-01-02").startswith("2026-01-02-")
    assert version(date="2026-11-23", origin="read 2025-01-01").startswith("2026-11-23-")
    assert version() == version() != version(models={})


def test_a_ratio_is_measured_on_a_text() -> None:
    found = measure("three small words", len, lambda text: len(text.split()))
    assert (found.ours, found.theirs, found.ratio) == (17, 3, Decimal("0.1765"))
    for ours, theirs in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"from {ours} and {theirs} tokens"):
            measure("", lambda _, n=ours: n, lambda _, n=theirs: n)  # type: ignore[misc]
