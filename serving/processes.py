"""Owning a tree of processes: whatever happens, nothing stays behind.

Ray killed the hard way leaves HAProxy and engine processes behind. Every process of a fleet therefore carries a mark
in its environment (children inherit it), a guard outlives the supervisor, and the kernel tells the supervisor when the
guard dies. `sweep` ends all marked processes. May not happen in here: Ray, files of the fleet.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil

MARK = "FLOTILLA_RUN"
_PR_SET_PDEATHSIG = 1


def die_with_parent(sig: signal.Signals) -> None:
    """Ask the kernel to send this process `sig` when the thread that made it ends (Linux)."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), sig)


def marked(run: str) -> list[psutil.Process]:
    """All processes that carry this run's mark, without the calling one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == run:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def sweep(run: str, grace_s: float = 5.0, spare: frozenset[int] = frozenset()) -> int:
    """End all processes of a run: SIGTERM, and SIGKILL after the grace. Returns how many there were.

    `spare`: process ids that are left alone.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + grace_s
    while found := [p for p in marked(run) if p.pid not in spare]:
        hard = time.monotonic() >= deadline
        for process in found:
            if hard or process.pid not in ended:
                ended.add(process.pid)
                try:
                    process.kill() if hard else process.terminate()
                except psutil.Error:
                    pass
        psutil.wait_procs(found, timeout=0.5 if hard else max(0.1, deadline - time.monotonic()))
    return len(ended)


def alive(pid: int, run: str) -> bool:
    """Whether this process still is the one of that run."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == run
    except (psutil.Error, OSError):
        return False
