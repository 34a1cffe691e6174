"""Four gateway processes against one limit, in each store that processes can share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from redis_server import RedisServer

from serving.bench.book import BookProcess

HERE = Path(__file__).parent
LIMIT = 137


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_four_gateway_processes_let_exactly_one_limit_through(store: str, tmp_path: Path,
                                                              request: pytest.FixtureRequest) -> None:
    book = None
    if store == "redis":
        server: RedisServer = request.getfixturevalue("own_redis")
        where = server.url
    else:
        where = str(tmp_path / "book.sock")
        book = BookProcess(Path(where))
    command = [sys.executable, str(HERE / "gateway_process.py"), "100", str(LIMIT)]
    gateways = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for gateway in gateways:
            assert gateway.stdin is not None and gateway.stdout is not None
            gateway.stdin.write(where + "\n")
            gateway.stdin.flush()
            assert gateway.stdout.readline() == "ready\n"
        for gateway in gateways:
            gateway.stdin.write("go\n")  # type: ignore[union-attr]
            gateway.stdin.flush()  # type: ignore[union-attr]
        admitted = [int(gateway.stdout.readline()) for gateway in gateways]  # type: ignore[union-attr]
    finally:
        for gateway in gateways:
            gateway.kill()
            gateway.communicate()
        if book is not None:
            book.stop()
    assert sum(admitted) == LIMIT
    assert len([n for n in admitted if n]) > 1, "more than one of them had a part"
