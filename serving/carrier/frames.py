"""The carrier's frames: a length, the stream it belongs to, a kind, and bytes.

    u32 length of the payload | u32 stream | u8 kind | payload            (little-endian)

Gateway to replica: ASK (a whole request), GONE (the caller left), HOLD and GO_ON (the caller is slow, or reads again).
Replica to gateway: HEAD (status and headers), PART (bytes of the body), END, BROKEN (there will be no end).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

ASK, GONE, HOLD, GO_ON, HEAD, PART, END, BROKEN = range(8)
MAX_PART = 64 * 1024  # longer bodies are cut, so that no stream keeps the others waiting for long
MAX_FRAME = 1024 * 1024  # longer requests go by HTTP, longer answers are cut
_PREFIX = struct.Struct("<IIB")
_SIZE = _PREFIX.size


class Ask(msgspec.Struct, array_like=True):
    """A request. `headers`: lower-case names."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Head(msgspec.Struct, array_like=True):
    """The beginning of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]


class WrongFrame(Exception):
    """The other side does not speak this protocol."""


def frame(stream: int, kind: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _PREFIX.pack(len(payload), stream, kind) + payload


class Reader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(stream, kind, payload) of each whole frame. Raises: WrongFrame."""
        data = self._held + data if self._held else data
        at, size = 0, len(data)
        while size - at >= _SIZE:
            length, stream, kind = _PREFIX.unpack_from(data, at)
            end = at + _SIZE + length
            if length > MAX_FRAME or kind > BROKEN:
                raise WrongFrame(f"a frame of kind {kind} and {length} bytes")
            if end > size:
                break
            yield stream, kind, data[at + _SIZE : end]
            at = end
        self._held = data[at:] if at < size else b""


encode = msgspec.msgpack.encode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_head = msgspec.msgpack.Decoder(Head).decode
