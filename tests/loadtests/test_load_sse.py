from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.sse import EventParser

STREAM = (
    b": ping\n\n"
    b'data: {"a":"w\xc3\xb6rd \xe2\x82\xac"}\n\n'
    b"event: x\r\nid: 3\r\ndata:no space\r\n\r\n"
    b"data: first\ndata: second\n\n"
    b"\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = ['{"a":"wörd €"}', "no space", "first\nsecond", "[DONE]"]


def parsed(pieces) -> list[str]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_cut_at_any_byte_changes_nothing(at):
    assert parsed([STREAM[:at], STREAM[at:]]) == EVENTS


def test_byte_by_byte():
    assert parsed(bytes([byte]) for byte in STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cuts(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert parsed(STREAM[a:b] for a, b in zip(edges, edges[1:], strict=False)) == EVENTS


def test_an_event_comes_with_the_byte_that_completes_it():
    parser = EventParser()
    assert parser.feed(b"data: x\n") == []
    assert parser.feed(b"\n") == ["x"]


def test_an_unfinished_event_is_none():
    assert parsed([b"data: x\n"]) == []
