"""A spool's files: rows as msgpack in frames."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from serving.fleet.records import MeterReading, RequestRecord
from serving.ledger import frames

log = logging.getLogger(__name__)
Entry = MeterReading | RequestRecord
_READ_BYTES = 1024 * 1024  # at once, so that memory does not grow with the entries
_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = {b"m": msgspec.msgpack.Decoder(MeterReading).decode, b"r": msgspec.msgpack.Decoder(RequestRecord).decode}


@dataclass
class Segment:
    """One file."""

    path: Path
    size: int = 0  # bytes on disk
    entries: int = 0  # that are left
    at: int = 0  # bytes that are done with


def encoded(entry: Entry) -> bytes:
    """The frame of an entry. Raises: what msgspec raises for a value that it cannot encode."""
    if isinstance(entry, MeterReading):
        return frames.framed(b"m" + _ENCODE(entry))
    try:
        return frames.framed(b"r" + _ENCODE(entry))
    except UnicodeEncodeError:  # a caller wrote half a character
        words = {name: text.encode(errors="replace").decode() for name, text in vars(entry).items()
                 if isinstance(text, str)}
        return frames.framed(b"r" + _ENCODE(replace(entry, **words)))


def decoded(data: bytes, start: int, end: int) -> Entry:
    """The entry in a frame. Raises: KeyError or msgspec.MsgspecError when another version wrote it."""
    payload = memoryview(data)[start + frames.HEAD_BYTES : end]
    return _DECODE[bytes(payload[:1])](payload[1:])


def found(path: Path, newest: bool) -> Segment:
    """A segment that is there already. What was being written when its process died is cut off. Raises: OSError."""
    data = path.read_bytes()
    entries, end = frames.count(data)
    if newest and end < len(data):
        log.warning("%s: its process died while it wrote; %d bytes are cut off", path, len(data) - end)
        os.truncate(path, end)
        data = data[:end]
    if not data:
        path.unlink()
    return Segment(path, len(data), entries)


def read(segment: Segment, at: int) -> bytes:
    """The bytes from `at` on: about 1 MiB, but at least one whole frame where there is one. Raises: OSError."""
    rest = segment.size - at
    with segment.path.open("rb") as file:
        data = os.pread(file.fileno(), min(rest, _READ_BYTES), at)
        frame = frames.next_frame(data, 0)
        if len(data) < rest and (frame is None or frame[0] > 0):
            data = os.pread(file.fileno(), rest, at)
    return data
