"""Workers on other machines: the leader stands at an address for a whole run, and whoever works with it sees the end of
it by that.

A run may be several Locust masters, one after the other (a sweep, an interference run), and a Locust worker ends with
its master. So the leader keeps one connection open per worker for as long as the run lasts: while it is open a worker
starts again for the next master, and when it closes there is none. Nothing else is said on it; Locust's own messages go
to the port above.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from loadtests.errors import ArgumentError, UnreachableError

_RETRY_S = 0.3


@dataclass(frozen=True)
class Address:
    """Where a leader stands. `locust`: the port of Locust's messages."""

    host: str
    port: int

    @property
    def locust(self) -> int:
        return self.port + 1

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """Raises: ArgumentError for what is not HOST:PORT."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65535:
            raise ArgumentError(f"{option} {text}: expected HOST:PORT, for example 0.0.0.0:5557; the port above it is "
                                "used too")
        return cls(host, int(port))


class Presence:
    """The leader's side: open for as long as the run lasts."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Presence:
        """Raises: ArgumentError when the address cannot be listened on."""
        try:
            self._listening = socket.create_server((self._address.host, self._address.port))
        except OSError as error:
            raise ArgumentError(f"--lead {self._address.host}:{self._address.port}: {error.strerror}") from error
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self._connections.append(self._listening.accept()[0])

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            connection.close()


def awaited(address: Address, within_s: float) -> socket.socket:
    """A connection to a leader, who may not be there yet. Raises: UnreachableError."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            connection = socket.create_connection((address.host, address.port), timeout=5)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UnreachableError(f"no leader at {address.host}:{address.port} within {within_s:g} s: "
                                       f"{error}") from error
            time.sleep(_RETRY_S)
        else:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection
