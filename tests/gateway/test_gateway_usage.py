"""Finding the usage at the end of an answer."""

from __future__ import annotations

import json

import pytest
from fake_replica import ANSWER, DONE, STREAM, USAGE, delta

from serving.fleet.records import Tokens
from serving.gateway import usage


def test_of_a_whole_answer_and_of_a_stream() -> None:
    for body in (ANSWER, b"".join(STREAM)):
        assert usage.find(body) == usage.Usage(Tokens(9, 4, 3), USAGE["cost"])


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
