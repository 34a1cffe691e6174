"""Holds one server of a benchmark: starts it, waits, and leaves nothing of it behind, however either of them ends.

Run as `python -m serving.bench.hold FOLDER SECONDS CORES COMMAND…`; CORES (`0,1`, or nothing) bounds what it may use.
It ends with the process that started it; on SIGTERM the command gets a SIGINT and so many seconds, then all its
descendants are ended. May not happen in here: measuring.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

from serving import processes


def main(folder: str, stop_s: float, cores: list[int], command: list[str]) -> int:
    """Run the command in `folder` to its end, or until a signal. Returns its code."""
    child: subprocess.Popen[bytes] | None = None
    asked = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        asked.set()
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    processes.die_with_parent(signal.SIGTERM)
    processes.adopt_orphans()
    if cores:
        os.sched_setaffinity(0, cores)
    mark = f"bench-{os.getpid()}"
    try:
        child = subprocess.Popen(command, cwd=folder, env=os.environ | {processes.MARK: mark}, start_new_session=True)
        while child.poll() is None and not asked.wait(0.2):
            pass
        return child.wait(stop_s) if asked.is_set() else child.returncode
    except subprocess.TimeoutExpired:
        return 1
    finally:
        processes.sweep(processes.Run(mark, folder), spare=frozenset({os.getppid()}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), [int(c) for c in sys.argv[3].split(",") if c], sys.argv[4:]))
