"""Small runs are faster as they are written than compiled; FLOTILLA_SIMULATOR=compiled runs the same tests compiled."""

from __future__ import annotations

import os

os.environ.setdefault("FLOTILLA_SIMULATOR", "plain")
