"""A request to stop survives code that swallows it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import signal
from serving.stopping import StopRequest
stop = StopRequest()
try:
    try:
        print("ready", flush=True)
        while True:
            signal.pause()
    except BaseException:
        print("swallowed", flush=True)
    while True:
        signal.pause()
except SystemExit:
    pass
finally:
    stop.leaving()
    print("cleaning up", flush=True)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGALRM)
    print("clean", flush=True)
"""


def test_a_request_that_was_swallowed_is_made_again_and_cleaning_up_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=30)
    assert said.split("\n")[:-1] == ["swallowed", "cleaning up", "clean"]
    assert child.returncode == 0
