"""What holds for every test: time is measured in benchmarks, so that no test fails because a machine was busy."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# a terminal's width is read once, when the consoles are made: before any test sets another one for itself
for of_a_terminal in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(of_a_terminal, None)
import serving.cli.output  # noqa: E402, F401

# a shell that runs the suite in the background has its programs ignore Ctrl-C, and they would pass it on to the tests'
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("flotilla", deadline=None)
settings.load_profile("flotilla")
