"""Owning a tree of processes: whatever happens, nothing stays behind.

Ray killed the hard way leaves engine processes behind, in sessions of their own. So guard and supervisor
adopt their orphaned descendants (`adopt_orphans`) and end all of them; the kernel tells each of them when the other
dies. Where both were killed at once, processes of the run are still known by a mark in their environment or by the
files of the run's folder that they hold open. May not happen in here: Ray, files of the fleet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass

import psutil

MARK = "FLOTILLA_RUN"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(sig: signal.Signals) -> None:
    """Ask the kernel to send this process `sig` when the thread that made it ends (Linux)."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, int(sig))
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), sig)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


@dataclass(frozen=True)
class Run:
    """What tells the processes of a run from others: its mark, and the folder that it alone uses."""

    mark: str
    folder: str

    def owns(self, process: psutil.Process) -> bool:
        """Whether a process belongs to this run. Renamed processes have lost their environment, not their files."""
        try:
            if process.environ().get(MARK) == self.mark:
                return True
            fds = f"/proc/{process.pid}/fd"
            return any(os.readlink(f"{fds}/{fd}").startswith(self.folder + os.sep) for fd in os.listdir(fds))
        except (psutil.Error, OSError):
            return False

    def processes(self) -> list[psutil.Process]:
        """All processes of this run and all descendants of the calling process, without that one itself."""
        found = {p.pid: p for p in psutil.Process().children(recursive=True)}
        found |= {p.pid: p for p in psutil.process_iter() if p.pid not in found and self.owns(p)}
        found.pop(os.getpid(), None)
        return list(found.values())


def sweep(run: Run, grace_s: float = 5.0, spare: frozenset[int] = frozenset()) -> int:
    """End all processes of a run: SIGTERM, and SIGKILL after the grace. Returns how many there were.

    `spare`: process ids that are left alone.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + grace_s
    while found := [p for p in run.processes() if p.pid not in spare and _living(p)]:
        hard = time.monotonic() >= deadline
        for process in found:
            if hard or process.pid not in ended:
                ended.add(process.pid)
                with contextlib.suppress(psutil.Error):
                    process.kill() if hard else process.terminate()
        psutil.wait_procs(found, timeout=0.5 if hard else max(0.1, min(1.0, deadline - time.monotonic())))
        _reap()
    return len(ended)


def _living(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reap() -> None:
    """Collect adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def alive(pid: int, mark: str) -> bool:
    """Whether this process still is the one of that run."""
    try:
        process = psutil.Process(pid)
        return _living(process) and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False
