"""Frames: cut anywhere they are the same, and what is none is refused before it costs memory."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.carrier import frames

FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, frames.BROKEN), st.binary(max_size=300)),
                  max_size=12)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """The pieces between the points."""
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in points)})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=40))
def test_any_cut_gives_the_same_frames(sent: list[tuple[int, int, bytes]], points: list[int]) -> None:
    reader = frames.Reader()
    data = b"".join(frames.frame(*each) for each in sent)
    found = [each for piece in cut(data, points) for each in reader.feed(piece)]
    assert found == sent


@given(FRAMES)
def test_byte_by_byte(sent: list[tuple[int, int, bytes]]) -> None:
    reader = frames.Reader()
    data = b"".join(frames.frame(*each) for each in sent)
    assert [each for n in range(len(data)) for each in reader.feed(data[n : n + 1])] == sent


@given(st.integers(0, 8), st.binary(max_size=50))
def test_a_partial_frame_is_kept_once(missing: int, payload: bytes) -> None:
    """What is held is the frame's bytes and nothing of the frames before it."""
    reader, whole = frames.Reader(), frames.frame(7, frames.PART, payload)
    part = whole[: len(whole) - 1 - min(missing, len(whole) - 1)]
    assert list(reader.feed(whole * 5 + part)) == [(7, frames.PART, payload)] * 5
    assert len(reader._held) == len(part)


@pytest.mark.parametrize("length", [frames.MAX_FRAME + 1, 2**32 - 1])
def test_a_huge_frame_is_refused_by_its_head(length: int) -> None:
    reader = frames.Reader()
    with pytest.raises(frames.WrongFrame, match=str(length)):
        list(reader.feed(struct.pack("<IIB", length, 1, frames.PART)))


@pytest.mark.parametrize("kind", [frames.BROKEN + 1, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(frames.WrongFrame, match=f"kind {kind}"):
        list(frames.Reader().feed(struct.pack("<IIB", 0, 1, kind)))


def test_text_of_another_protocol_is_refused() -> None:
    """An HTTP client that finds this port."""
    with pytest.raises(frames.WrongFrame):
        list(frames.Reader().feed(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"))


def test_a_frame_holds_a_whole_request() -> None:
    """The longest request that the gateway sends by the carrier, with its headers, fits in."""
    assert frames.MAX_FRAME > 2 * 256 * 1024


@given(st.text(max_size=20), st.binary(max_size=20), st.lists(st.tuples(st.binary(), st.binary()), max_size=4),
       st.binary(max_size=100))
def test_requests_and_heads_come_back_as_they_were(path: str, query: bytes, headers: list, body: bytes) -> None:
    ask = frames.Ask("POST", path, query, headers, body)
    assert frames.decode_ask(frames.encode(ask)) == ask
    head = frames.Head(299, headers)
    assert frames.decode_head(frames.encode(head)) == head
