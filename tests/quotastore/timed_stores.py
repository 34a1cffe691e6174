"""Stores at a time that tests set."""

from __future__ import annotations

from serving.quotastore.redis import RedisStore


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


class TimedRedis(RedisStore):
    """Redis, at a time that the test sets."""

    def __init__(self, url: str, prefix: str, clock: Clock) -> None:
        super().__init__(url, prefix)
        self._clock = clock

    async def _run(self, what: str, argument: object) -> bytes:
        self._now = repr(self._clock()).encode()
        return await super()._run(what, argument)
