"""Every store obeys the book's rules: the same questions at the same times get the same answers."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import PASSWORD, RedisServer
from timed_stores import Clock, TimedRedis

from serving.errors import ConfigError
from serving.fleet.quotas import LEASE_S, Book, Granted, Lease, Part, Refused, Unseeded, Want
from serving.quotastore.base import Store, StoreAway
from serving.quotastore.client import BookClient
from serving.quotastore.redis import RedisStore
from serving.quotastore.server import BookServer

RATE, SEATS, MONEY = "t/tokens", "t/seats", "t/usd/day/2026-11-25"
COUNTERS = [(RATE, "rate"), (SEATS, "seats"), (MONEY, "money")]


def wants(tokens: int, amount: int, least: int = 1) -> list[Want]:
    return [Want(MONEY, "money", 1_000, amount, min(least, amount)),
            Want(RATE, "rate", 100, tokens, min(least, tokens)), Want(SEATS, "seats", 3, 1, 1)]


async def test_a_reservation_and_its_settlement(store: Store) -> None:
    assert await store.reserve("a", wants(60, 500)) == Unseeded((MONEY,))
    await store.seed(MONEY, 100)
    answer = await store.reserve("a", wants(60, 500))
    assert isinstance(answer, Granted)
    assert [(line.granted, line.used) for line in answer.lines] == [(500, 600), (60, 60), (1, 1)]
    parts = (Part(MONEY, "money", 42), Part(RATE, "rate", 7), Part(SEATS, "seats", 1))
    await store.settle([("a", parts)])
    await store.settle([("a", parts), ("a", parts)])
    assert await store.used(COUNTERS) == [7, 0, 142]


async def test_amounts_stay_exact(store: Store) -> None:
    most = 2**53 - 1
    await store.seed(MONEY, most - 7)
    answer = await store.reserve("a", [Want(MONEY, "money", most, 9, 1)])
    assert isinstance(answer, Granted) and answer.lines[0].granted == 7
    await store.settle([("a", (Part(MONEY, "money", 6),))])
    assert await store.used([(MONEY, "money")]) == [most - 1]


async def test_the_dead_are_named_with_what_they_hold(store: Store, clock: Clock) -> None:
    await store.seed(MONEY, 0)
    await store.reserve("dead", wants(60, 500))
    assert await store.overdue() == []
    clock.now += LEASE_S
    (late,) = await store.overdue()
    assert late.request_id == "dead" and set(late.counters) == set(COUNTERS)


async def test_nothing_is_overdue_in_an_empty_store(store: Store) -> None:
    assert await store.overdue() == []
    assert await store.used(COUNTERS) == [0, 0, 0]
    await store.renew([])
    await store.settle([])


STEP = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 9), st.integers(1, 60), st.integers(1, 400), st.integers(1, 60)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 70), st.integers(0, 500)),
    st.tuples(st.just("renew"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.floats(0, 40)),
    st.tuples(st.just("jump"), st.sampled_from([-86_400.0, -100.0, -3.0, 90.0])),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=40))
def test_redis_answers_as_the_book_does(redis: RedisServer, steps: list[tuple]) -> None:
    """Two ways to say the same rules, held against each other over any history, clock jumps included."""

    async def run() -> None:
        clock, book = Clock(), Book()
        store = TimedRedis(redis.url, f"history{id(steps)}-{len(steps)}-{hash(str(steps))}", clock)
        await store.seed(MONEY, 17)
        book.seed(MONEY, 17, clock())
        lives = [0] * 10  # an id that has settled is not used again
        try:
            for step in steps:
                what, *of = step
                name = f"r{of[0]}.{lives[of[0]]}" if what in ("reserve", "settle", "renew") else ""
                if what == "reserve":
                    _, tokens, amount, least = of
                    asked = wants(tokens, amount, least)
                    theirs, ours = await store.reserve(name, asked), book.reserve(name, asked, clock())
                    assert type(theirs) is type(ours)
                    if isinstance(ours, Refused) and isinstance(theirs, Refused):
                        assert (theirs.at, theirs.used) == (ours.at, ours.used)
                        assert theirs.retry_s == pytest.approx(ours.retry_s, abs=1e-3)
                    elif isinstance(ours, Granted) and isinstance(theirs, Granted):
                        assert [(x.granted, x.used) for x in theirs.lines] == [(x.granted, x.used) for x in ours.lines]
                        assert [x.reset_s for x in theirs.lines] == pytest.approx([x.reset_s for x in ours.lines],
                                                                                  abs=1e-3)
                elif what == "settle":
                    at, tokens, amount = of
                    parts = (Part(MONEY, "money", amount), Part(RATE, "rate", tokens), Part(SEATS, "seats", 1))
                    await store.settle([(name, parts), (name, parts)])
                    assert [book.settle(name, parts, clock()) for _ in range(2)] == [True, False]
                    lives[at] += 1
                elif what == "renew":
                    lease = Lease(name, (SEATS,))
                    await store.renew([lease])
                    book.renew([lease], clock())
                else:
                    clock.now += of[0]
                assert await store.used(COUNTERS) == book.used(COUNTERS, clock())  # type: ignore[arg-type]
                assert {(o.request_id, o.counters) for o in await store.overdue()} == {
                    (o.request_id, o.counters) for o in book.overdue(clock())}
        finally:
            await store.close()

    asyncio.run(run())


async def test_only_its_owner_may_open_the_embedded_store(tmp_path: Path) -> None:
    server = BookServer(tmp_path / "q" / "quotas.sock")
    await server.start()
    try:
        assert stat.S_IMODE((tmp_path / "q" / "quotas.sock").stat().st_mode) == 0o600
    finally:
        await server.stop()


async def test_the_embedded_store_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "quotas.sock"
    client = BookClient(path, patience_s=2)
    with pytest.raises(StoreAway, match="cannot be reached"):
        await client.used([(RATE, "rate")])
    for _ in range(2):
        server = BookServer(path)
        await server.start()
        assert await client.used([(RATE, "rate")]) == [0]
        await server.stop()
        with pytest.raises(StoreAway):
            await client.used([(RATE, "rate")])


async def test_what_is_no_question_is_hung_up_on(tmp_path: Path) -> None:
    server = BookServer(tmp_path / "quotas.sock")
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "quotas.sock"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await server.stop()


async def test_a_server_that_hangs_is_away(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(hang, str(tmp_path / "quotas.sock"))
    client = BookClient(tmp_path / "quotas.sock", patience_s=0.05)
    with pytest.raises(StoreAway, match="does not answer"):
        await client.used([(RATE, "rate")])
    await client.close()
    server.close()


async def test_redis_goes_and_comes_back_and_its_password_is_never_told(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url, "gone", patience_s=2)
    await store.reserve("a", [Want(RATE, "rate", 10, 4, 4)])
    own_redis.stop()
    with pytest.raises(StoreAway) as found:
        await store.used([(RATE, "rate")])
    assert PASSWORD not in str(found.value)
    own_redis.start()
    assert await store.used([(RATE, "rate")]) == [0], "this one keeps nothing on disk"
    await store.close()


async def test_a_wrong_password_is_told_without_it(redis: RedisServer) -> None:
    store = RedisStore(redis.url.replace(PASSWORD, "wrong-secret"), "x")
    with pytest.raises(StoreAway) as found:
        await store.used([(RATE, "rate")])
    assert "wrong-secret" not in f"{found.value} {found.value.__cause__}"
    await store.close()


def test_a_url_of_something_else_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="write redis://") as found:
        RedisStore("postgresql://me:secret@host/x", "x")
    assert "secret" not in str(found.value)
