"""Connections are kept, however many files are open, and send at once."""

from __future__ import annotations

import gc
import os
import resource
import socket
import time

import gevent
import pytest
from gevent.server import StreamServer

from loadtests.client import ChatClient
from loadtests.endpoint import Endpoint

ANSWER = b'{"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": 1}}'


@pytest.fixture
def server():
    """An endpoint that keeps connections; `accepted`: how many came."""
    accepted: list[socket.socket] = []

    def serve(connection, address) -> None:
        accepted.append(connection)
        reader = connection.makefile("rb")
        while length := _length(reader):
            reader.read(length)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER))

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    server.accepted = accepted
    yield server
    server.stop()


def _length(reader) -> int:
    found = 0
    while line := reader.readline().strip():
        if line.lower().startswith(b"content-length:"):
            found = int(line.split(b":")[1])
    return found


@pytest.fixture
def many_files():
    """More open files than select can name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    # What earlier tests have let go is closed now, and not when its number would be given out again.
    gevent.sleep(0.05)
    gc.collect()
    null = os.open(os.devnull, os.O_RDONLY)
    files = [null]
    while files[-1] < 1100:
        files.append(os.dup(null))
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask(client: ChatClient) -> None:
    seen = client.send({"model": "m", "messages": [], "max_tokens": 1, "stream": False}, "x").judge()
    assert seen.error is None and seen.usage.completion_tokens == 1


@pytest.mark.parametrize("files", ["few", "many"])
def test_requests_share_a_connection(server, files, request):
    if files == "many":
        request.getfixturevalue("many_files")
    client = ChatClient(Endpoint("127.0.0.1", server.server_port, tls=False), 5.0, time.perf_counter)
    for _ in range(3):
        ask(client)
    assert len(server.accepted) == 1
    (kept,) = client._http._connection_pool._socket_queue.queue
    assert (kept.fileno() > 1023) == (files == "many")
    assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    client.close()


def test_a_connection_that_the_server_ended_is_not_used_again(server):
    client = ChatClient(Endpoint("127.0.0.1", server.server_port, tls=False), 5.0, time.perf_counter)
    ask(client)
    server.accepted[0].shutdown(socket.SHUT_RDWR)
    ask(client)
    assert len(server.accepted) == 2
    client.close()
