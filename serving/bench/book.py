"""A fleet's embedded store of counters in a process of its own: `python -m serving.bench.book SOCKET`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from serving import processes
from serving.errors import StartFailed
from serving.quotastore.server import BookServer


class BookProcess:
    """A store that answers until it is stopped."""

    def __init__(self, path: Path, cores: Iterable[int] = ()) -> None:
        """`path`: of its socket. `cores`: that it may run on; none: any. Raises: StartFailed."""
        self._child = subprocess.Popen([sys.executable, "-m", "serving.bench.book", str(path)], stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        if not self._child.stdout.readline().startswith(b"ready"):
            self.stop()
            raise StartFailed("the store of counters did not start")
        if cores := tuple(cores):
            os.sched_setaffinity(self._child.pid, cores)

    def stop(self) -> None:
        """Kill it."""
        self._child.kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()


async def main(path: str) -> None:
    """Serve until killed; prints `ready`."""
    await BookServer(Path(path)).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import signal

    import uvloop

    processes.die_with_parent(signal.SIGKILL)
    uvloop.run(main(sys.argv[1]))
