"""Folders that are either whole or absent, whoever dies while making them.

Knows nothing of models: it is given a builder. Each family has one lock and one scratch folder beside the
published ones (`.<family>.lock`, `.<family>.building`). Only the holder of the lock may touch the scratch
folder, and the kernel frees a dead holder's lock, so whatever a new holder finds there is a dead build's and
may be swept. Must not guess from process ids or ages who is alive.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def publish(target: Path, family: str, build: Callable[[Path], None]) -> Path:
    """Target, made by `build(folder)` if it is not there yet; it appears in one rename, when all is on disk.

    A caller that comes while another builds the same family waits for it. What `build` raises goes through,
    with nothing published. An existing target is returned without writing anything, so that reuse also works
    on a read-only root.
    """
    if target.is_dir():
        return target
    root = target.parent
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    with _locked(_lock(root, family)):
        if target.is_dir():
            return target
        scratch = _scratch(root, family)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            build(scratch)
            _flush(scratch)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        _flush_one(root)
    return target


def aside(target: Path, build: Callable[[Path], None]) -> Path:
    """Target, made by `build(folder)` beside itself and renamed when all is on disk. For a folder that one caller
    makes once, without locks; a builder that dies leaves a hidden scratch folder beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(scratch)
        scratch.chmod(0o755)
        _flush(scratch)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def sweep(root: Path) -> tuple[Path, ...]:
    """Removes and returns the scratch folders in root whose builders are dead; leaves living builds alone."""
    swept = []
    for scratch in sorted(root.glob(".*.building")):
        with _locked(scratch.with_suffix(".lock"), wait=False) as held:
            # Asked again under the lock: the builder may have published it in the meantime.
            if held and scratch.is_dir():
                shutil.rmtree(scratch, ignore_errors=True)
                swept.append(scratch)
    return tuple(swept)


def _lock(root: Path, family: str) -> Path:
    return root / f".{family}.lock"


def _scratch(root: Path, family: str) -> Path:
    return root / f".{family}.building"


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock file exclusively; yields whether it is held. Excludes threads of one process as well."""
    # The file is never removed: holders of two files of the same name would each believe they are alone.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
