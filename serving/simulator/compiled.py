"""Compiled functions and where their machine code is kept between runs.

Compiling takes tens of seconds, so the code is kept, under a hash of all the sources it is made of: numba itself
notices only changes of the file that a function stands in, not of those that it calls. SIMULATOR_LOOPS=plain leaves
the functions as they are written: for a few hundred requests that is faster than compiling, and can be stepped through.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba
from numba.core import config

from serving.fleet import stepmodel

_SOURCES = ("compiled", "engine", "events", "pool", "state")
PLAIN = os.environ.get("SIMULATOR_LOOPS") == "plain"
F = TypeVar("F", bound=Callable)


def _folder() -> str | None:
    """Where machine code of exactly these sources is kept; None where no such folder can be written."""
    told = hashlib.blake2s(numba.__version__.encode(), digest_size=8)
    here = Path(__file__).parent
    for source in (*(here / f"{name}.py" for name in _SOURCES), Path(stepmodel.__file__)):
        told.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "flotilla" / "compiled" / told.hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


_FOLDER = None if PLAIN else _folder()


def kept() -> bool:
    """Whether machine code is there already (or not needed), so that nothing has to be compiled first."""
    return PLAIN or (_FOLDER is not None and any(Path(_FOLDER).rglob("*.nbi")))


def compiled(function: F) -> F:
    """The same function as machine code."""
    if PLAIN:
        return function
    before, config.CACHE_DIR = config.CACHE_DIR, _FOLDER or config.CACHE_DIR
    try:
        return numba.njit(function, cache=_FOLDER is not None)
    finally:
        config.CACHE_DIR = before
