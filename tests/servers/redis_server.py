"""A Redis server of the tests' own: on a free loopback port, nothing on disk, gone when they end."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PASSWORD = "not-to-be-seen"


def binary() -> str | None:
    """The server's program, Redis or Valkey, or None."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """One server. `stop` and `start` as an outage would have it; the port stays the same, what it knew is gone."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        configuration = self._folder / "redis.conf"  # a password has no place in a process list
        configuration.write_text(f"bind 127.0.0.1\nport {self.port}\nsave ''\nappendonly no\nrequirepass {PASSWORD}\n"
                                 f"dir {self._folder}\n")
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", self._program, str(configuration)],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline and self._process.poll() is None, "redis-server does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[RedisServer]:
    """A server for as long as the block lasts. Needs `binary`."""
    program = binary()
    assert program is not None
    server = RedisServer(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
