"""Rows that wait on disk while the ledger's database is away: append-only, bounded, in a folder of one process.

An entry is on disk when `append` returns, so it survives the death of its process (not a power cut: nothing is synced),
and it leaves only after whoever drains the spool has written it elsewhere. A process that dies in between leaves
entries to be written again: rows may be repeated without changing anything. Files go as a whole, so up to 4 MiB are
repeated. May not happen in here: databases, clocks, tries.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.errors import LedgerError, SpoolFull
from serving.ledger import frames
from serving.ledger.owning import OwnedFolder
from serving.ledger.segments import Entry, Segment, decoded, encoded, found, read

log = logging.getLogger(__name__)
BATCH = 200
SEGMENT_BYTES = 4 * 1024 * 1024
_PROBE_BYTES = 64 * 1024


@dataclass(frozen=True)
class SpoolStats:
    """What waits: bytes on disk and entries; and how many rows were given up because there was no room for them."""

    bytes: int
    entries: int
    unmetered: int = 0


class Spool:
    """The spool in `folder`, of at most `limit_bytes` on disk. Thread-safe, but one thread at a time may drain."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Make a spool, or go on with the one that is there. Raises: LedgerError when another process owns it or the
        folder cannot be made."""
        self._begin(OwnedFolder.own(folder), limit_bytes)

    @classmethod
    def left(cls, folder: Path) -> Spool | None:
        """The spool of a process that is dead, to be emptied; None when it lives or there is none. Raises: LedgerError
        when its files cannot be read."""
        owned = OwnedFolder.left(folder)
        if owned is None:
            return None
        spool = cls.__new__(cls)
        spool._begin(owned, 0)
        return spool

    def _begin(self, owned: OwnedFolder, limit_bytes: int) -> None:
        self.folder, self.limit_bytes, self.corrupt = owned.path, limit_bytes, 0
        self._owned, self._lock = owned, threading.Lock()
        self._tail: int | None = None  # file descriptor of the newest segment while it grows
        self._ends: list[int] = []  # where the entries end that `peek` has shown
        self._misfit = 1  # bytes that did not fit last
        self.disk_failed = False  # the disk itself did not take what came last
        self._refused = self.folder / "refused"
        try:
            self._find()
        except OSError as error:
            owned.close(remove=False)
            raise LedgerError(f"{self.folder}: the spool cannot be read: {error}") from error

    def _find(self) -> None:
        """Take in what is in the folder already."""
        (self.folder / "probe").unlink(missing_ok=True)
        self._refused_bytes = self._refused.stat().st_size if self._refused.exists() else 0
        paths = sorted(self.folder.glob("*.seg"))
        self._number = int(paths[-1].stem) if paths else 0
        self._segments = deque(s for path in paths if (s := found(path, newest=path is paths[-1])).size)
        self._size = sum(s.size for s in self._segments) + self._refused_bytes

    # -- what is there

    @property
    def empty(self) -> bool:
        """Whether nothing waits. What the database has refused does not wait."""
        return not self._segments

    @property
    def refused(self) -> bool:
        """Whether there are entries that the database has refused."""
        return self._refused_bytes > 0

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._size

    @property
    def entries(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(s.entries for s in self._segments)

    @property
    def full(self) -> bool:
        """Whether there is no room for another entry like the last one."""
        return self.disk_failed or self._size + self._misfit > self.limit_bytes

    # -- in

    def append(self, entry: Entry, reserve_bytes: int = 0) -> None:
        """Put an entry on disk. `reserve_bytes`: how far it may go beyond the limit.

        Raises: SpoolFull when there is no room or the disk fails, LedgerError after `close`, and whatever msgspec
        raises for a value that it cannot encode.
        """
        frame = encoded(entry)
        with self._lock:
            if self._owned.closed:
                raise LedgerError(f"{self.folder}: the spool is closed")
            size = self._size + len(frame)
            self._misfit = len(frame) if size > self.limit_bytes else 1
            if size > self.limit_bytes + reserve_bytes:
                raise SpoolFull(f"{self.folder}: the spool is full, {size - len(frame)} of {self.limit_bytes} bytes: "
                                "bring the database back, or give ledger.spool_mib more in the fleet file")
            try:
                self._write(frame)
            except OSError as error:
                self.disk_failed = True
                raise SpoolFull(f"{self.folder}: the disk takes nothing: {error}") from error
            self.disk_failed = False

    def _write(self, frame: bytes) -> None:
        if self._tail is not None and self._segments[-1].size + len(frame) > SEGMENT_BYTES:
            self._seal()
        if self._tail is None:
            path = self._next_path()
            self._tail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._segments.append(Segment(path))
        segment = self._segments[-1]
        try:
            if (written := os.write(self._tail, frame)) < len(frame):
                raise OSError(f"{written} of {len(frame)} bytes were written")
        except OSError:
            self._undo(segment)
            raise
        segment.size, segment.entries = segment.size + len(frame), segment.entries + 1
        self._size += len(frame)

    def _undo(self, segment: Segment) -> None:
        """Take back what a failed write has left in the newest segment."""
        try:
            os.ftruncate(self._tail, segment.size)
        except OSError:  # readers pass over it
            left = os.fstat(self._tail).st_size - segment.size
            segment.size, self._size = segment.size + left, self._size + left
            self._seal()
        if not segment.size:
            self._seal()
            segment.path.unlink(missing_ok=True)
            self._segments.pop()

    def probe(self) -> None:
        """Try whether a disk that has failed takes bytes again."""
        path = self.folder / "probe"
        try:
            path.write_bytes(b"\0" * _PROBE_BYTES)
            self.disk_failed = False
        except OSError as error:
            log.debug("the disk of the spool still takes nothing (%s)", error)
        finally:
            path.unlink(missing_ok=True)

    # -- out

    def drain(self, write: Callable[[list[Entry]], None], batch: int = BATCH) -> int:
        """Hand over all that waits, oldest first; an entry is dropped only after `write` has returned.

        Returns: how many entries were dropped. Raises: what `write` raises.
        """
        dropped = 0
        while entries := self.peek(batch):
            write(entries)
            self.drop(len(entries))
            dropped += len(entries)
        return dropped

    def peek(self, count: int = BATCH) -> list[Entry]:
        """The oldest entries, at most `count` and about 1 MiB. Damaged ones are passed over and counted."""
        with self._lock:
            while self._segments and not self._owned.closed:
                segment, entries = self._segments[0], []
                data = read(segment, segment.at)
                self._ends, at = [], 0
                while len(entries) < count and (frame := frames.next_frame(data, at)) is not None:
                    start, end = frame
                    if start > at:
                        if not entries:
                            self._damaged(segment, start)
                        break
                    try:
                        entries.append(decoded(data, start, end))
                    except Exception as error:  # whole, but written by another version
                        if not entries:
                            self._keep_apart(segment, end, error)
                        break
                    at = end
                    self._ends.append(segment.at + end)
                if entries:
                    return entries
                if frame is None:
                    if data:
                        self._damaged(segment, len(data))
                    self._discard()
            return []

    def second(self) -> Entry | None:
        """The entry behind the oldest one; None when there is none to be read."""
        with self._lock:
            for segment in tuple(self._segments)[:2]:
                at = self._ends[0] if segment is self._segments[0] else segment.at
                data = read(segment, at)
                if (frame := frames.next_frame(data, 0)) is not None:
                    try:
                        return decoded(data, *frame)
                    except Exception:  # `peek` deals with it
                        return None
            return None

    def drop(self, count: int) -> None:
        """The oldest `count` of the entries that `peek` has just shown are written elsewhere."""
        with self._lock:
            if self._owned.closed:
                return  # it may be another's by now
            segment = self._segments[0]
            segment.at, segment.entries = self._ends[count - 1], segment.entries - count
            self._ends = self._ends[count:]
            if segment.at >= segment.size:
                self._discard()

    def set_aside(self, why: Exception) -> None:
        """The oldest entry that `peek` has just shown is one that the database refuses: nothing waits for it."""
        with self._lock:
            if self._owned.closed:
                return
            self._keep_apart(self._segments[0], self._ends[0] - self._segments[0].at, why)

    def again(self) -> None:
        """What was refused waits once more."""
        with self._lock:
            if self._refused_bytes:
                self._seal()
                path = self._next_path()
                os.rename(self._refused, path)
                self._refused_bytes = 0
                self._segments.append(found(path, newest=False))

    def close(self) -> None:
        """Give the folder up. What waits in it stays for `durable.adopt`; an empty one is removed."""
        with self._lock:
            self._seal()
            self._owned.close(remove=self.empty and not self._refused_bytes)

    # -- under the lock

    def _damaged(self, segment: Segment, length: int) -> None:
        self.corrupt += 1
        log.error("%s: %d bytes from %d on are damaged and passed over", segment.path, length, segment.at)
        segment.at += length

    def _keep_apart(self, segment: Segment, length: int, why: Exception) -> None:
        raw = segment.path.read_bytes()[segment.at : segment.at + length]
        try:
            with self._refused.open("ab") as file:
                file.write(raw)
            self._refused_bytes, self._size = self._refused_bytes + length, self._size + length
            log.error("%s: an entry is refused (%s) and kept apart", self._refused, why)
        except OSError as error:
            log.error("an entry is refused (%s), cannot be kept apart (%s), and is lost: %r", why, error, raw)
        segment.at, segment.entries = segment.at + length, segment.entries - 1
        self._ends = []
        if segment.at >= segment.size:
            self._discard()

    def _discard(self) -> None:
        """The oldest segment is done with."""
        if len(self._segments) == 1:
            self._seal()
        segment = self._segments.popleft()
        segment.path.unlink(missing_ok=True)
        self._size -= segment.size

    def _seal(self) -> None:
        """The newest segment grows no more."""
        if self._tail is not None:
            os.close(self._tail)
            self._tail = None

    def _next_path(self) -> Path:
        self._number += 1
        return self.folder / f"{self._number:012d}.seg"
