"""The store in Redis or Valkey: every question is one run of `script.lua`, which Redis runs alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import NoScriptError, RedisError

from serving.errors import ConfigError
from serving.fleet.quotas import Answer, Kind, Lease, Overdue, Want
from serving.quotastore.base import PATIENCE_S, Settlement, StoreAway

_SCRIPT = files(__package__).joinpath("script.lua").read_text()
_SHA = hashlib.sha1(_SCRIPT.encode()).hexdigest()  # noqa: S324 - how Redis names scripts
_CONNECTIONS = 32
_encode = msgspec.msgpack.Encoder().encode
_answer = msgspec.msgpack.Decoder(Answer).decode
_overdue = msgspec.msgpack.Decoder(list[Overdue]).decode
_numbers = msgspec.msgpack.Decoder(list[int]).decode
SCHEMES = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")


class RedisStore:
    """A `Store` in Redis. `prefix`: what its keys begin with, the same for all gateways of a fleet."""

    def __init__(self, url: str, prefix: str, patience_s: float = PATIENCE_S) -> None:
        """Connects when it is first asked. Raises: ConfigError for a URL of something else."""
        if not url.startswith(SCHEMES):  # the URL may hold a password, so it is not shown
            raise ConfigError("the quota store's URL cannot be used; write redis://[USER:PASSWORD@]HOST:PORT/DB, "
                              "rediss://… for TLS, or valkey://…")
        url = url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
        pool = BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=patience_s, socket_timeout=patience_s,
            socket_connect_timeout=patience_s)
        self._redis = Redis(connection_pool=pool)
        self._prefix = f"{{flotilla:{prefix}}}/"
        self._now = b""  # tests set it

    async def reserve(self, request_id: str, wants: Sequence[Want]) -> Answer:
        """See `Store`."""
        return _answer(await self._run("reserve", (request_id, wants)))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store`."""
        await self._run("settle", settlements)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `Store`."""
        await self._run("renew", leases)

    async def overdue(self) -> list[Overdue]:
        """See `Store`."""
        return _overdue(await self._run("overdue", ()))

    async def seed(self, key: str, spent: int) -> None:
        """See `Store`."""
        await self._run("seed", (key, spent))

    async def used(self, keys: Sequence[tuple[str, Kind]]) -> list[int]:
        """See `Store`."""
        return _numbers(await self._run("used", keys))

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose(close_connection_pool=True)

    async def _run(self, what: str, argument: Any) -> bytes:
        arguments = (1, self._prefix, what, _encode(argument), self._now)
        try:
            try:
                return await self._redis.execute_command("EVALSHA", _SHA, *arguments)
            except NoScriptError:
                return await self._redis.execute_command("EVAL", _SCRIPT, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            # one line, and nothing of the address that may hold a password
            raise StoreAway(f"the quota store does not answer: {type(error).__name__}") from error
