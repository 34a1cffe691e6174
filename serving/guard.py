"""The guard of a run: starts the supervisor, outlives it, and leaves nothing behind.

It is the process whose death ends the fleet, and it is kept so small that little can go wrong in it. Both ways round
are covered: when the supervisor ends, the guard ends all marked processes; when the guard is killed, the kernel tells
the supervisor, which stops the rest. Run as `python -m serving.guard [--with-parent]` with a `Plan` on standard input.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving import processes, runstate
from serving.plan import Plan


def main() -> int:
    """Run the plan until the supervisor ends or a signal asks to stop. Returns 0, or 1 when the fleet failed."""
    asked = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def on_signal(number: int, frame: Any) -> None:
        asked.set()
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    if "--with-parent" in sys.argv:
        processes.die_with_parent(signal.SIGTERM)
    processes.adopt_orphans()
    plan = Plan.from_json(sys.stdin.read())
    state_dir, logs = Path(plan.state_dir), Path(plan.logs)
    state = runstate.RunState(plan.run, os.getpid(), plan.fleet_name, plan.fleet_file, plan.api, plan.metrics,
                              "starting", time.time(), plan.logs, plan.changes.sources)
    code = 1
    try:
        logs.mkdir(parents=True, exist_ok=True)
        Path(plan.work_dir).mkdir(parents=True, exist_ok=True)
        runstate.write(state_dir, state)
        with open(logs / "supervisor.log", "ab") as out:
            child = subprocess.Popen([sys.executable, "-m", "serving.supervisor"], stdin=subprocess.PIPE, stdout=out,
                                     stderr=out, start_new_session=True)
        assert child.stdin is not None
        child.stdin.write(plan.to_json().encode())
        child.stdin.close()
        if asked.is_set():
            child.send_signal(signal.SIGTERM)
        code = child.wait()
    finally:
        processes.sweep(processes.Run(plan.run, plan.work_dir))
        shutil.rmtree(plan.work_dir, ignore_errors=True)
        last = runstate.read(state_dir) or state
        failed = not asked.is_set()  # no one asked it to end
        error = last.error or (f"the supervisor ended with code {code}; its logs: {plan.logs}" if failed else "")
        runstate.write(state_dir, replace(last, state="failed" if failed else "stopped", error=error))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
