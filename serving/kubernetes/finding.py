"""One answer of `flotilla doctor`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One answer. `fix`: what to do about it, where something is to be done."""

    check: str
    level: Level
    said: str
    fix: str = ""
