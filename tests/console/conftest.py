"""A console over a made-up fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import console_rig
import pytest
from console_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A console that looks twenty times a second."""
    with console_rig.running(tmp_path) as made:
        yield made
