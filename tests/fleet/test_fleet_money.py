"""Money adds up: shares to their total, intervals to their bill."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.money import NANO, NS_PER_HOUR, apportion, bill, nanousd, usd

TOTALS = st.integers(0, 10**15)
WEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40)


@given(TOTALS, WEIGHTS)
def test_shares_add_up_and_none_is_negative(total: int, weights: list[int]) -> None:
    shares = apportion(total, weights)
    assert len(shares) == len(weights)
    assert sum(shares) == total
    assert min(shares) >= 0


@given(TOTALS, WEIGHTS.filter(any))
def test_a_share_is_within_one_of_the_exact_one(total: int, weights: list[int]) -> None:
    for share, weight in zip(apportion(total, weights), weights, strict=True):
        assert abs(share - Fraction(total * weight, sum(weights))) < 1


@given(TOTALS, WEIGHTS.filter(any))
def test_who_weighs_nothing_pays_nothing(total: int, weights: list[int]) -> None:
    assert all(share == 0 for share, w in zip(apportion(total, weights), weights, strict=True) if w == 0)


@given(TOTALS, st.integers(1, 40))
def test_without_weights_all_pay_the_same(total: int, count: int) -> None:
    shares = apportion(total, [0] * count)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(TOTALS, st.lists(st.integers(0, 10**9), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_order_matters_only_to_ties(total: int, weights: list[int], random) -> None:
    order = list(range(len(weights)))
    random.shuffle(order)
    shares, moved = apportion(total, weights), apportion(total, [weights[i] for i in order])
    # The same shares come out; only equal remainders may change hands, and then by one.
    assert sorted(shares) == sorted(moved)
    assert all(abs(shares[i] - moved[at]) <= 1 for at, i in enumerate(order))


def test_ties_go_to_the_earlier_weight() -> None:
    assert apportion(2, [1, 1, 1]) == [1, 1, 0]


@pytest.mark.parametrize(("weights", "said"), [([], "no one"), ([1, -1], "negative")])
def test_what_cannot_be_split_is_refused(weights: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        apportion(10, weights)


@given(st.integers(0, 10**14), st.lists(st.integers(0, 10**13), min_size=1, max_size=30))
def test_bills_of_pieces_add_up_to_the_bill_of_the_whole(price: int, pieces: list[int]) -> None:
    at, parts = 0, []
    for piece in pieces:
        parts.append(bill(price, at + piece) - bill(price, at))
        at += piece
    assert sum(parts) == bill(price, at)
    assert min(parts) >= 0


@given(st.integers(0, 10**14))
def test_an_hour_costs_the_price(price: int) -> None:
    assert bill(price, NS_PER_HOUR) == price
    assert bill(price, 0) == 0


def test_a_cent_is_exact() -> None:
    assert nanousd("0.0416") == 41_600_000
    assert nanousd(Decimal("0.1")) == NANO // 10
    assert nanousd(3) == 3 * NANO
    assert nanousd("0.0000000005") == 0  # half to even
    assert nanousd("0.0000000015") == 2
    assert usd(41_600_000) == pytest.approx(0.0416)
