"""Idle time and cold starts on requests: never more than is there, never more than the policy says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.loading import NO_LOADING, LoadingPolicy, Pool

SECOND = 1_000_000_000
EVENTS = st.lists(st.one_of(
    st.tuples(st.just("put"), st.integers(0, 10**9), st.integers(0, 10**9)),
    st.tuples(st.just("draw"), st.integers(0, 10**9), st.integers(0, 10**6)),
))


@given(EVENTS, st.floats(0, 100), st.floats(1, 10**6))
def test_nothing_is_made_or_lost(events, most: float, window_s: float) -> None:
    pool, got, drawn, now = Pool(LoadingPolicy(most, window_s)), [0, 0], [0, 0], 0
    for what, a, b in events:
        if what == "put":
            pool.put(a, b)
            got = [got[0] + a, got[1] + b]
        else:
            now += b * SECOND
            idle, cold = pool.draw(a, now)
            assert idle >= 0 and cold >= 0 and idle + cold <= most * a + 1e-6
            drawn = [drawn[0] + idle, drawn[1] + cold]
    assert [pool.idle + drawn[0], pool.cold_start + drawn[1]] == got
    assert pool.idle >= 0 and pool.cold_start >= 0


def test_steady_load_is_charged_all_idle_time_and_each_request_alike() -> None:
    pool, now, paid = Pool(LoadingPolicy(10.0, 3_600)), 0, []
    for _ in range(5_000):
        now += SECOND
        pool.put(2_000, 0)
        paid.append(sum(pool.draw(1_000, now)))
    assert set(paid[100:]) <= {1_999, 2_000, 2_001}
    assert pool.idle <= 10_000


def test_the_first_request_after_a_quiet_night_does_not_pay_for_the_night() -> None:
    pool = Pool(LoadingPolicy(10.0, 86_400))
    pool.put(10**9, 0)
    assert pool.draw(1_000, 1) == (10_000, 0)
    assert pool.idle == 10**9 - 10_000


def test_without_a_policy_no_request_pays_for_idle_time() -> None:
    pool = Pool(NO_LOADING)
    pool.put(10**6, 10**6)
    assert pool.draw(10**6, 1) == (0, 0)
    assert (pool.idle, pool.cold_start) == (10**6, 10**6)


def test_a_request_without_work_pays_nothing() -> None:
    pool = Pool(LoadingPolicy())
    pool.put(10**6, 0)
    assert pool.draw(0, 1) == (0, 0)


def test_cold_start_and_idle_time_are_drawn_as_they_are_there() -> None:
    pool = Pool(LoadingPolicy(100.0))
    pool.put(300, 100)
    assert pool.draw(1_000, 1) == (300, 100)
