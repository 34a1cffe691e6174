"""Stores of counters, each kind of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis_server
from redis_server import RedisServer
from timed_stores import Clock, TimedRedis

from serving.quotastore.base import Store
from serving.quotastore.client import BookClient
from serving.quotastore.own import OwnBook
from serving.quotastore.server import BookServer

_names = itertools.count()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do not stop it."""
    if redis_server.binary() is None:
        pytest.skip("Redis is not installed (Debian: apt-get install redis-server)")
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may stop and start it."""
    if redis_server.binary() is None:
        pytest.skip("Redis is not installed (Debian: apt-get install redis-server)")
    with redis_server.running(tmp_path) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """The embedded store's and Redis' time."""
    return Clock()


@pytest_asyncio.fixture(params=["own", "embedded", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """A store without anything in it. Once for each kind."""
    if request.param == "own":
        yield OwnBook(clock)
        return
    if request.param == "embedded":
        server = BookServer(tmp_path / "quotas.sock", clock)
        await server.start()
        client = BookClient(tmp_path / "quotas.sock")
        yield client
        await client.close()
        await server.stop()
        return
    made = TimedRedis(request.getfixturevalue("redis").url, f"test{next(_names)}", clock)
    yield made
    await made.close()
