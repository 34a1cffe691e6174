"""Serves the gateway's app on a socket of its own, next to other gateway processes on the same port.

The kernel spreads connections over the processes that listen (SO_REUSEPORT). A stop first closes the door, then lets
what is under way end. May not happen in here: anything about requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from serving.errors import StartFailed
from serving.fleet.catalogue import GatewaySpec
from serving.gateway.app import Gateway
from serving.gateway.wire import WireLimits, with_limits

_KEEP_ALIVE_S = 75
_BACKLOG = 4096


def limits(spec: GatewaySpec) -> WireLimits:
    """What a connection may take, by the fleet file."""
    return WireLimits(int(spec.max_header_kib * 1024), spec.body_timeout_s, spec.write_timeout_s)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that shares its port with other gateways. Raises: StartFailed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # What it accepts takes this over. asyncio's own loop would not set it, and each answer wait 40 ms for its body.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise StartFailed(f"the API's address {host}:{port} cannot be used: {error.strerror}; "
                          "stop what listens there or choose another with --port") from error
    return sock


class GatewayServer:
    """One gateway process's server."""

    def __init__(self, app: Gateway, spec: GatewaySpec, sock: socket.socket) -> None:
        self._app = app
        self.port = int(sock.getsockname()[1])
        config = uvicorn.Config(
            app, http=with_limits(limits(spec)), loop="none", interface="asgi3", ws="none", access_log=False,
            log_level="error", proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S, backlog=_BACKLOG, timeout_graceful_shutdown=int(spec.drain_s),
            lifespan="on",
        )
        self._server, self._socket = uvicorn.Server(config), sock
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # signals are the owner's
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises: StartFailed."""
        self._task = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                raise StartFailed("the gateway's server did not start; see its log")
            await asyncio.sleep(0.01)

    @property
    def healthy(self) -> bool:
        """Whether it serves."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Take no new connections, let what is under way end, for at most the fleet's drain time."""
        self._app.draining = True
        self._server.should_exit = True
        if self._task is not None:
            await self._task
