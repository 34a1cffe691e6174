"""The connections of a load test: kept alive, as many as are needed, and nothing held back in them."""

from __future__ import annotations

import select
import socket
from typing import Any

from gevent.monkey import get_original
from geventhttpclient import HTTPClient
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool

from loadtests.endpoint import Endpoint

#: More than any machine has ports: the pool must never make a request wait for another one's connection.
_UNBOUNDED = 1_000_000


class _Kept(ConnectionPool):
    def after_connect(self, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _is_socket_alive(self, sock: Any) -> bool:
        """Whether an idle connection has neither been ended nor been sent anything. By poll, since select knows no file
        descriptor above 1023: there every request would pay for a new connection."""
        if sock is None or sock.fileno() < 0:
            return False
        poll = get_original("select", "poll")()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)


class _KeptTls(_Kept, SSLConnectionPool):
    pass


def client_of(endpoint: Endpoint, timeout_s: float, block_size: int) -> HTTPClient:
    """An HTTP client for the endpoint. timeout_s: for connecting, and for a silence in between."""
    client = HTTPClient(endpoint.host, endpoint.port, ssl=endpoint.tls, block_size=block_size)
    pool = _KeptTls if endpoint.tls else _Kept
    client._connection_pool = pool(
        client.host, client.port, client.host, client.port, size=_UNBOUNDED, connection_timeout=timeout_s,
        network_timeout=timeout_s,
    )
    return client
