"""Frames in a file: a mark, a length, a checksum, then bytes. What is damaged is told from what is whole.

A reader that meets damage goes on at the next whole frame, so one bad byte costs one frame.
"""

from __future__ import annotations

import struct
import zlib

_MARK = b"\xf1\x07"  # in no UTF-8 text
_HEAD = struct.Struct("<2sII")  # mark, length, checksum of the length and the bytes
HEAD_BYTES = _HEAD.size


def framed(payload: bytes) -> bytes:
    """The frame of `payload`."""
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload, len(payload))) + payload


def next_frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the first whole frame at or after `at` begins and ends; None when there is none."""
    view = memoryview(data)
    while (at := data.find(_MARK, at)) >= 0:
        if at + _HEAD.size <= len(data):
            _, length, checksum = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end <= len(data) and zlib.crc32(view[at + _HEAD.size : end], length) == checksum:
                return at, end
        at += 1
    return None


def count(data: bytes) -> tuple[int, int]:
    """How many whole frames there are, and where the last one ends."""
    found, end = 0, 0
    while (frame := next_frame(data, end)) is not None:
        found, end = found + 1, frame[1]
    return found, end
