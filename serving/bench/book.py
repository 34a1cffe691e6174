"""A fleet's embedded store of counters in a process of its own: `python -m serving.bench.book SOCKET`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from serving import processes
from serving.quotastore.server import BookServer


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
