"""A folder that one process owns for as long as it lives: a lock on a file in it, which dies with the process."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from serving.errors import LedgerError

_LOCK = "lock"


@dataclass
class OwnedFolder:
    """The folder at `path`, owned until `close`."""

    path: Path
    _held: int | None

    @classmethod
    def own(cls, path: Path) -> OwnedFolder:
        """Make the folder if need be, and own it. Raises: LedgerError when it is another's or cannot be made."""
        try:
            while True:  # whoever clears up after the dead may just remove a folder that is not owned yet
                path.mkdir(parents=True, exist_ok=True)
                try:
                    held = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except FileNotFoundError:
                    continue
                if not _locked(held):
                    raise LedgerError(f"{path}: another process spools there; give each process a folder of its own")
                if _is(held, path / _LOCK):
                    return cls(path, held)
                os.close(held)
        except OSError as error:
            raise LedgerError(f"{path}: no spool can be kept there: {error}") from error

    @classmethod
    def left(cls, path: Path) -> OwnedFolder | None:
        """Own a folder whose owner is dead; None when it lives, or there is no such folder."""
        try:
            held = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        if not _locked(held):
            return None
        if not _is(held, path / _LOCK):
            os.close(held)
            return None
        return cls(path, held)

    @property
    def closed(self) -> bool:
        """Whether it has been given up."""
        return self._held is None

    def close(self, remove: bool) -> None:
        """Give it up; `remove`: with the folder, unless there is something in it."""
        if self._held is None:
            return
        try:
            if remove and {p.name for p in self.path.iterdir()} == {_LOCK}:
                (self.path / _LOCK).unlink()
                self.path.rmdir()
        except OSError:
            pass  # a new owner has come, or the folder is gone already
        os.close(self._held)
        self._held = None


def _locked(held: int) -> bool:
    """Lock an open file, or close it."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return False
    return True


def _is(held: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(held), os.stat(path))
    except FileNotFoundError:
        return False
