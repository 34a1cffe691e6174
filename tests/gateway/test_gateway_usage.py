"""Finding the usage at the end of an answer."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from fake_replica import ANSWER, DONE, STREAM, USAGE, delta

from serving.fleet.records import Tokens
from serving.gateway import usage


def test_of_a_whole_answer_and_of_a_stream() -> None:
    for body in (ANSWER, b"".join(STREAM)):
        found = usage.find(body)
        assert (found.tokens, found.cost, found.cost_usd) == (Tokens(9, 4, 3), Decimal("0.000123"), USAGE["cost"])


def test_a_cost_keeps_its_digits() -> None:
    assert str(usage.find(b'{"usage":{"cost":1234567890123.100000000}}').cost) == "1234567890123.100000000"


@pytest.mark.parametrize("cost", [None, "1", [], {}])
def test_a_cost_that_is_no_number_is_none(cost: object) -> None:
    assert usage.find(b'{"usage":{"cost":%b}}' % json.dumps(cost).encode()).cost is None


def test_the_last_one_counts() -> None:
    first = delta("a", usage={"prompt_tokens": 1, "completion_tokens": 1})
    last = delta("b", usage={"prompt_tokens": 1, "completion_tokens": 2})
    assert usage.find(first + last + DONE) == usage.Usage(Tokens(1, 0, 2), None)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"usage":null}', b'{"usage":{"prompt_tokens":', DONE, delta('"usage":{"x":1}')]
)
def test_there_is_none(body: bytes) -> None:
    assert usage.find(body) is None


@pytest.mark.parametrize("value", [None, "9", -1, 1.5, []])
def test_counts_that_are_none_count_as_nothing(value: object) -> None:
    body = json.dumps(
        {"usage": {"prompt_tokens": value, "prompt_tokens_details": None}}, separators=(",", ":")
    ).encode()
    assert usage.find(body).tokens == Tokens()
