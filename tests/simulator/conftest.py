"""Small runs are faster as they are written than compiled; SIMULATOR_LOOPS=compiled runs the same tests compiled."""

from __future__ import annotations

import os

os.environ.setdefault("SIMULATOR_LOOPS", "plain")
