"""The language of the embedded store: frames of a length and a msgpack value, numbered questions, numbered answers."""

from __future__ import annotations

import struct

import msgspec

from serving.fleet.quotas import Granted, Kind, Lease, Overdue, Part, Refused, Unseeded, Want

_HEAD = struct.Struct("<I")
LONGEST = 16 * 1024 * 1024


class Reserve(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """`Store.reserve`."""

    number: int
    request_id: str
    wants: tuple[Want, ...]


class Settle(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """`Store.settle`."""

    number: int
    settlements: tuple[tuple[str, tuple[Part, ...]], ...]


class Renew(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """`Store.renew`."""

    number: int
    leases: tuple[Lease, ...]


class FindOverdue(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """`Store.overdue`."""

    number: int


class Seed(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """`Store.seed`."""

    number: int
    key: str
    spent: int


class Used(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """`Store.used`."""

    number: int
    keys: tuple[tuple[str, Kind], ...]


Question = Reserve | Settle | Renew | FindOverdue | Seed | Used


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a question: of a reservation, or what is asked for otherwise."""

    number: int
    answer: Granted | Refused | Unseeded | None = None
    overdue: tuple[Overdue, ...] = ()
    used: tuple[int, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
question = msgspec.msgpack.Decoder(Question).decode
reply = msgspec.msgpack.Decoder(Reply).decode


def framed(value: Question | Reply) -> bytes:
    """A value as it travels."""
    data = _encode(value)
    return _HEAD.pack(len(data)) + data


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now. Raises: ValueError for one of a length that no one sends."""
        data, found, at = self._held + data if self._held else data, [], 0
        while len(data) - at >= _HEAD.size:
            (length,) = _HEAD.unpack_from(data, at)
            if length > LONGEST:
                raise ValueError(f"a frame of {length} bytes")
            end = at + _HEAD.size + length
            if end > len(data):
                break
            found.append(data[at + _HEAD.size : end])
            at = end
        self._held = data[at:]
        return found
