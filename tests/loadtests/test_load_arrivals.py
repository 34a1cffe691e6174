from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_samples import CHAT, CONVERSATION, make_scenario

from loadtests.arrivals import schedule, slice_of
from loadtests.distributions import Constant, LogNormal, Uniform, draw
from loadtests.pacing import Poisson
from loadtests.stages import Span
from loadtests.timing import arrival_times


def poisson_times(rate, duration, rng):
    hold = Span("hold", "hold", 0.0, duration, 1.0, 1.0, True)
    return arrival_times(Poisson(process="poisson", rate_per_s=rate), (hold,), rng)


@given(workers=st.integers(1, 7), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_slices_are_disjoint_and_together_everything(workers, seed):
    every = schedule(make_scenario(seed=seed))
    parts = [slice_of(every, worker, workers) for worker in range(workers)]
    assert sorted((a for part in parts for a in part), key=lambda a: a.index) == list(every)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(seed=st.integers(0, 2**32), rate=st.floats(0.5, 50), duration=st.floats(1, 30))
@settings(max_examples=30, deadline=None)
def test_times_are_ascending_within_the_run_and_depend_only_on_the_seed(seed, rate, duration):
    times = poisson_times(rate, duration, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    assert len(times) == 0 or (times[0] >= 0 and times[-1] < duration)
    assert np.array_equal(times, poisson_times(rate, duration, np.random.default_rng(seed)))


def test_rate_and_gaps_are_poisson():
    times = poisson_times(20.0, 1000.0, np.random.default_rng(3))
    # Five standard deviations of a Poisson count.
    assert abs(len(times) - 20_000) < 5 * 20_000**0.5
    gaps = np.diff(times)
    # Exponential gaps: mean and standard deviation are equal, and 1/e of them are longer than the mean.
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)
    assert np.mean(gaps > gaps.mean()) == pytest.approx(np.exp(-1), abs=0.01)


def test_same_seed_same_schedule_other_seed_another():
    assert schedule(make_scenario(seed=5)) == schedule(make_scenario(seed=5))
    assert schedule(make_scenario(seed=5)) != schedule(make_scenario(seed=6))


def test_a_longer_run_begins_with_the_shorter_one():
    short, long = schedule(make_scenario(duration_s=10.0)), schedule(make_scenario(duration_s=100.0))
    assert len(short) < len(long)
    assert long[: len(short)] == short


def test_another_rate_leaves_every_arrival_what_it_was():
    slow = schedule(make_scenario())
    fast = schedule(make_scenario(arrivals={"process": "poisson", "rate_per_s": 10.0}))
    for one, other in zip(slow, fast, strict=False):
        assert (one.model, one.user_kind, one.turns) == (other.model, other.user_kind, other.turns)
        assert other.at_s == pytest.approx(one.at_s / 2)


def test_weights_are_shares_of_the_arrivals():
    arrivals = schedule(make_scenario(duration_s=2000.0))
    models = Counter(arrival.model for arrival in arrivals)
    assert models["a"] / len(arrivals) == pytest.approx(0.75, abs=0.02)
    kinds = Counter(arrival.user_kind for arrival in arrivals if arrival.model == "b")
    assert kinds["conversation"] / kinds.total() == pytest.approx(0.5, abs=0.05)


def test_turns_follow_the_user_kind():
    arrivals = schedule(make_scenario(models={"m": {"users": [CHAT | {"stream_share": 0.0}, CONVERSATION]}}))
    chats = [arrival for arrival in arrivals if arrival.user_kind == "chat"]
    talks = [arrival for arrival in arrivals if arrival.user_kind == "conversation"]
    assert chats and talks
    assert all(len(arrival.turns) == 1 and not arrival.turns[0].stream for arrival in chats)
    for arrival in talks:
        assert len(arrival.turns) == 3
        assert arrival.turns[0].think_s == 0.0 and all(turn.think_s > 0 for turn in arrival.turns[1:])
        assert len({turn.text_seed for turn in arrival.turns}) == 3


def test_think_time_has_the_mean_of_the_scenario():
    arrivals = schedule(make_scenario(duration_s=1000.0, models={"m": {"users": [CONVERSATION]}}))
    pauses = [turn.think_s for arrival in arrivals for turn in arrival.turns[1:]]
    assert np.mean(pauses) == pytest.approx(0.05, rel=0.05)


@given(seed=st.integers(0, 2**32))
def test_draws_stay_within_their_distribution(seed):
    rng = np.random.default_rng(seed)
    assert draw(Constant(kind="constant", value=7), rng) == 7
    assert 3 <= draw(Uniform(kind="uniform", low=3, high=5), rng) <= 5
    assert 10 <= draw(LogNormal(kind="lognormal", median=20, sigma=3, low=10, high=40), rng) <= 40


def test_uniform_reaches_both_ends_and_lognormal_its_median():
    rng = np.random.default_rng(0)
    assert {draw(Uniform(kind="uniform", low=1, high=3), rng) for _ in range(100)} == {1, 2, 3}
    values = [draw(LogNormal(kind="lognormal", median=100, sigma=0.5, high=10_000), rng) for _ in range(4000)]
    assert np.median(values) == pytest.approx(100, rel=0.05)
