"""The compiled engines: what is conserved, in which order requests are served, and that time may be cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet import balance, stepmodel
from serving.simulator import pool as pools
from serving.simulator import state
from serving.simulator.engine import run_seconds, steps_within
from serving.simulator.profile import EngineProfile, Profiles

NO_BLOCKS = np.zeros(0, np.int64)


def profile(**changes: object) -> EngineProfile:
    given = dict(fixed_s=0.015, token_s=7e-5, attention_s=5e-10, cache_s=1e-7, kv_tokens=8_192, block_tokens=16,
                 max_num_seqs=16, max_batched_tokens=512, max_model_len=4_096)
    return EngineProfile.model_validate(given | changes)


class Rig:
    """A pool with replicas that are ready, and a trace drawn from a seed."""

    def __init__(self, seed: int, count: int, rate: float, replicas: int, engine: EngineProfile,
                 by_conversation: bool = False, shared: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.at = np.cumsum(rng.exponential(1 / rate, count))
        self.prompt = np.clip(rng.lognormal(5, 1, count), 1, 3_000).astype(np.int64)
        self.output = np.clip(rng.lognormal(3.5, 1, count), 1, 1_000).astype(np.int64)
        self.key = rng.integers(1, 2**62, count)
        self.blocks = self.prompt // 64 if shared else np.zeros(count, np.int64)
        bids = np.arange(64, dtype=np.int64) if shared else NO_BLOCKS
        self.pool = state.make((engine,), replicas, (engine.max_num_seqs * 5 // 4,), by_conversation, bids, 64)
        self.pool = state.with_room(self.pool, count)
        for row in range(replicas):
            pools.open_row(self.pool, row, 0, np.uint64(row * 7_919 + 1), 0.0)
        self.next = 0

    def advance(self, until: float) -> None:
        zero = np.zeros(len(self.at), np.int64)
        self.next = pools.advance(self.pool, until, self.next, np.arange(len(self.at)), self.at, self.prompt,
                                  self.output, self.key, zero, self.blocks)


def by_number(ended: state.Ended) -> state.Ended:
    order = np.argsort(ended.number)
    return state.Ended(*(column[order] for column in ended))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.floats(0.5, 60), st.integers(1, 4), st.booleans(), st.booleans())
def test_nothing_is_lost(seed: int, count: int, rate: float, replicas: int, hashed: bool, shared: bool) -> None:
    engine = profile()
    rig = Rig(seed, count, rate, replicas, engine, hashed, shared)
    for until in np.linspace(0, rig.at[-1], 30):
        rig.advance(until)
        p = rig.pool.replicas
        assert (p.used <= engine.kv_blocks).all() and (p.used >= 0).all()
        assert (p.seats <= engine.max_num_seqs).all()
    rig.advance(1e12)
    done, p, q = by_number(state.taken(rig.pool)), rig.pool.replicas, rig.pool.count
    assert list(done.number) == list(range(count)) and (done.output == rig.output).all()
    assert p.made.sum() == rig.output.sum()
    assert done.seconds.sum() == pytest.approx(p.busy.sum(), rel=1e-9)  # the shares are the engines' time
    assert (done.wasted <= done.seconds).all() and (done.wasted[done.preempted == 0] == 0).all()
    assert (p.used == 0).all() and (p.in_flight == 0).all() and (p.context == 0).all() and q[state.QUEUED] == 0
    assert (done.first > done.arrived).all() and (done.ended >= done.first).all()
    assert (done.cached < done.prompt).all() and (shared or not done.cached.any())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 200), st.floats(0.5, 60), st.integers(2, 40))
def test_time_may_be_cut_anywhere_and_a_seed_gives_one_run(seed: int, count: int, rate: float, cuts: int) -> None:
    whole, cut = (Rig(seed, count, rate, 2, profile()) for _ in range(2))
    whole.advance(1e12)
    for until in np.linspace(0, cut.at[-1] * 1.2, cuts):
        cut.advance(until)
    cut.advance(1e12)
    for a, b in zip(state.taken(whole.pool), state.taken(cut.pool), strict=True):
        assert (a == b).all()


def test_first_come_first_served_at_one_replica() -> None:
    rig = Rig(3, 400, 200.0, 1, profile(kv_tokens=1_000_000))
    rig.advance(1e12)
    assert (np.diff(by_number(state.taken(rig.pool)).first) >= 0).all()


def test_too_little_cache_preempts_and_what_is_computed_again_is_waste() -> None:
    rig = Rig(5, 200, 50.0, 1, profile(kv_tokens=4_096))
    rig.advance(1e12)
    done = state.taken(rig.pool)
    assert done.preempted.sum() > 0 and done.wasted[done.preempted > 0].sum() > 0
    assert rig.pool.count[state.PREEMPTED] == done.preempted.sum()


def test_a_lonely_request_takes_what_the_step_model_says() -> None:
    engine = profile()
    rig = Rig(1, 1, 1.0, 1, engine)
    rig.prompt[:], rig.output[:] = 1_000, 50  # two chunks, then 49 decodes
    rig.advance(1e12)
    done, due = state.taken(rig.pool), engine.steps.part
    prefill = due(512, 0, 1) + due(488, 512, 1)
    assert done.first[0] - done.arrived[0] == pytest.approx(prefill)
    decode = sum(due(1, 1_000 + k, 1) for k in range(49))
    assert done.ended[0] - done.first[0] == pytest.approx(decode)
    assert done.seconds[0] == pytest.approx(prefill + decode)


def test_shared_prompts_are_found_in_the_cache() -> None:
    fresh, shared = (Rig(7, 200, 5.0, 1, profile(kv_tokens=32_768), shared=s) for s in (False, True))
    for rig in (fresh, shared):
        rig.advance(1e12)
    assert state.taken(shared.pool).cached.sum() > 0.5 * shared.prompt.sum()
    assert shared.pool.replicas.busy.sum() < fresh.pool.replicas.busy.sum()


def test_a_replica_that_fails_breaks_what_has_begun_and_gives_back_the_rest() -> None:
    rig = Rig(11, 300, 30.0, 2, profile())
    rig.advance(rig.at[150])
    pools.fail(rig.pool, 0, rig.at[150])
    assert rig.pool.replicas.in_flight[0] == 0
    rig.advance(1e12)
    done = by_number(state.taken(rig.pool))
    assert list(done.number) == list(range(300))
    broken = done.outcome == state.FAILED
    assert 0 < broken.sum() <= 16 and (done.output[broken] < rig.output[broken]).all()
    assert (done.output[~broken] == rig.output[~broken]).all()
    assert (done.replica[done.arrived > rig.at[150]] == 1).all()


def test_a_draining_replica_ends_what_it_has_and_takes_nothing_new() -> None:
    rig = Rig(13, 200, 20.0, 2, profile())
    rig.advance(rig.at[100])
    pools.drain(rig.pool, 0)
    rig.advance(1e12)
    done = state.taken(rig.pool)
    assert (done.outcome == state.FINISHED).all()
    assert (done.replica[done.arrived > rig.at[100]] == 1).all()


@given(st.floats(1e-4, 1.0), st.floats(0.0, 1e-3), st.integers(1, 5_000), st.floats(0, 1))
def test_a_run_ends_with_the_step_under_way(first: float, growth: float, most: int, part: float) -> None:
    at = part * run_seconds(first, growth, most)
    steps = steps_within(first, growth, at, most)
    assert 1 <= steps <= most and (steps == most or run_seconds(first, growth, steps) >= at)
    assert steps == 1 or run_seconds(first, growth, steps - 1) < at


@given(st.integers(1, 300), st.integers(0, 5_000), st.integers(1, 64))
def test_the_sum_in_closed_form_is_the_sum_of_the_shares(steps: int, context: int, requests: int) -> None:
    model = (5e-3, 2e-5, 3e-9, 4e-7)
    one_by_one = sum(stepmodel.due(*model, 1, context + k, requests) for k in range(steps))
    assert stepmodel.due_decoding(*model, steps, context, requests) == pytest.approx(one_by_one)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_hashes_are_the_gateways(key: int, seed: int) -> None:
    assert int(pools.mixed(key, np.uint64(seed))) == balance.mix(key, seed)


def test_profiles_name_the_nearest_and_refuse_what_takes_no_time() -> None:
    from serving.errors import ConfigError
    from serving.fleet.config import parse
    from serving.simulator.profile import as_text

    found = parse(as_text({"qwen@h100": profile()}), "p.json", Profiles)
    assert found.of("qwen", "h100") == profile()
    with pytest.raises(ConfigError, match="qwen@h100"):
        found.of("qwen", "h200")
    with pytest.raises(ValueError, match="no time"):
        profile(fixed_s=0.0, token_s=0.0)
