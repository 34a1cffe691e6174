"""Exemplars: beside a bucket of a histogram, the trace of the newest request that fell into it.

prometheus_client keeps none where several processes count. Here each process writes its own into a memory-mapped file
of slots, one per bucket, beside the files of its counters, and the exporter reads all of them. May not happen in here:
making a request wait; a file that grows without bound.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar

_SLOT = 512  # bytes
_SLOTS = 4096  # of one process; then the oldest owner's is taken over
_HEAD = struct.Struct("<IH")  # checksum and length of what follows
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Slots:
    """The file of one process. One thread writes; what a reader sees half written it knows by its checksum."""

    def __init__(self, folder: Path, pid: int, slots: int = _SLOTS) -> None:
        """The file is made anew: an earlier process with this id is gone."""
        with open(folder / f"exemplars_{pid}.slots", "w+b") as file:
            file.truncate(slots * _SLOT)  # sparse until it is written to
            self._map = mmap.mmap(file.fileno(), slots * _SLOT)
        self._owners: list[Any] = [None] * slots
        self._next = 0

    def own(self, owner: Any) -> int:
        """The number of a slot of its own; whoever had it learns so by its `slot`, which becomes None."""
        number = self._next % len(self._owners)
        self._next += 1
        if self._owners[number] is not None:
            self._owners[number].slot = None
        self._owners[number] = owner
        return number

    def write(self, number: int, content: bytes) -> None:
        """Replace what a slot holds. What does not fit leaves it as it is."""
        if len(content) <= _SLOT - _HEAD.size:
            at, head = number * _SLOT, _HEAD.pack(zlib.crc32(content), len(content))
            self._map[at:at + len(head) + len(content)] = head + content


def value_class(folder: Path, pid: int) -> type:
    """prometheus_client's value of many processes, with exemplars. `folder`: of its files."""
    base: Any = values.MultiProcessValue(lambda: pid)
    opened: list[Slots] = []

    class Value(base):
        """A count, and where it is a bucket's its newest exemplar."""

        slot: int | None = None

        def set_exemplar(self, exemplar: Exemplar) -> None:
            """Keep this one, in place of the one before."""
            if not opened:
                opened.append(Slots(folder, pid))
            if self.slot is None:
                self.slot = opened[0].own(self)
            _, _, name, label_names, label_values, *_ = self._params
            found = [name, dict(zip(label_names, label_values, strict=True)), *exemplar]
            opened[0].write(self.slot, json.dumps(found).encode())

    return Value


def read(folder: Path) -> dict[_Key, Exemplar]:
    """The newest exemplar of each bucket over all processes, by its sample's name and sorted labels."""
    newest: dict[_Key, Exemplar] = {}
    for file in folder.glob("exemplars_*.slots"):
        for content in _contents(file.read_bytes()):
            name, labels, *about = json.loads(content)
            key, found = (name, tuple(sorted(labels.items()))), Exemplar(*about)
            before = newest.get(key)
            if before is None or _at(found) > _at(before):
                newest[key] = found
    return newest


def _contents(told: bytes) -> Iterator[bytes]:
    for at in range(0, len(told), _SLOT):
        checksum, length = _HEAD.unpack_from(told, at)
        if not length:
            return  # slots are taken one after the other
        content = told[at + _HEAD.size:at + _HEAD.size + length]
        if zlib.crc32(content) == checksum:
            yield content


def newer(one: Exemplar | None, other: Exemplar | None) -> Exemplar | None:
    """The newer of two that may be there."""
    return max((e for e in (one, other) if e is not None), key=_at, default=None)


def _at(exemplar: Exemplar) -> float:
    return float(exemplar.timestamp or 0)


class Exemplified:
    """Families with the exemplars of a folder at their buckets."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], folder: Path) -> None:
        self._collect, self._folder = collect, folder

    def collect(self) -> Iterator[Metric]:
        """The families."""
        found = read(self._folder)
        for family in self._collect():
            if found and family.type == "histogram":
                family.samples = [s._replace(exemplar=found.get((s.name, tuple(sorted(s.labels.items())))))
                                  for s in family.samples]
            yield family
