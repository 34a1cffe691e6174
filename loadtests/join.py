"""`python -m loadtests.join HOST:PORT`: work for a run that `loadtests.run --lead HOST:PORT` leads elsewhere.

Waits for the leader, takes orders until its run is over, and ends with 0 then. It keeps nothing: what it saw goes to
the leader. The API key is this process's own.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from loadtests import child
from loadtests.endpoint import KEY_VARIABLE
from loadtests.errors import LoadTestError, RunError
from loadtests.team import Address, awaited

_GRACE_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 the run is over, 1 the worker failed, 2 bad arguments, 4 no leader came, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.join", description=__doc__.splitlines()[0])
    parser.add_argument("leader", metavar="HOST:PORT", help="what the leader was given as --lead")
    parser.add_argument("--within", type=float, default=600.0, metavar="S", help="longest wait for the leader "
                                                                                 "(default 600 seconds)")
    parser.epilog = f"The API key is taken from the environment variable {KEY_VARIABLE}."
    asked = parser.parse_args(argv)
    member: _Member | None = None
    try:
        address = Address.parse(asked.leader, "leader")
        member = _Member(address)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, member.ask)
        return member.work(awaited(address, asked.within))
    except LoadTestError as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


class _Member:
    """One worker of a team: a Locust worker per master of the run."""

    def __init__(self, leader: Address) -> None:
        self._leader = leader
        self._asked = threading.Event()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *_: object) -> None:
        """A signal handler: end."""
        self._asked.set()
        if self._process is None:
            raise KeyboardInterrupt
        self._end()

    def work(self, presence: socket.socket) -> int:
        """Work until the run is over. Raises: RunError when a worker fails before."""
        threading.Thread(target=self._watch, args=(presence,), daemon=True).start()
        while not self._over.is_set() and not self._asked.is_set():
            self._process = subprocess.Popen(child.worker_command(self._leader), stdin=subprocess.DEVNULL,
                                             env=child.environment(), start_new_session=True)
            try:
                code = self._process.wait()
            finally:
                self._signal(signal.SIGKILL)
            if code and not self._over.is_set() and not self._asked.is_set():
                raise RunError(f"the worker ended with code {code}; its log is above")
        return 130 if self._asked.is_set() else 0

    def _watch(self, presence: socket.socket) -> None:
        with suppress(OSError):
            while presence.recv(1):
                pass
        self._over.set()
        self._end()

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        timer = threading.Timer(_GRACE_S, self._signal, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


if __name__ == "__main__":
    sys.exit(main())
