"""What holds for every test: time is measured in benchmarks, so that no test fails because a machine was busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("flotilla", deadline=None)
settings.load_profile("flotilla")
