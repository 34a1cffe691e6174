"""Where a replica listens: loopback on one machine; on a cluster its pod's address and a port that a NetworkPolicy can
name, so that gateways reach it and no one else does. May not happen in here: serving.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable


def listening(host: str, ports: Iterable[int]) -> socket.socket:
    """A socket bound to the first of `ports` that is free; port 0 is whichever the system gives.

    Raises: OSError when none is free, or the address is not this machine's.
    """
    last: OSError | None = None
    for port in ports:
        sock = socket.socket()
        try:
            sock.bind((host, port))
            return sock
        except OSError as error:
            sock.close()
            last = error
    raise OSError(f"no port is free at {host} for a replica ({last})")


def address(sock: socket.socket) -> str:
    """HOST:PORT of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"
