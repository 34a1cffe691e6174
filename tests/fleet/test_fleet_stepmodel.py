"""The step-time model: what its fit finds, what it never finds, and how it says how well it predicts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.stepmodel import PRIOR, StepFitter, StepModel, nonnegative


def batch(rng: random.Random) -> tuple[int, float, int]:
    """Tokens, pairs and context of a step: some decodes, and at times a chunk of a prompt."""
    works = [(1, rng.randint(10, 4_000)) for _ in range(rng.randint(1, 64))]
    if rng.random() < 0.3:
        works.append((512, rng.choice([0, 512, 1_024])))
    return sum(n for n, _ in works), sum(n * (c + (n - 1) / 2) for n, c in works), sum(c for _, c in works)


def taught(model: StepModel, steps: int, noise: float = 0.0, seed: int = 1) -> StepFitter:
    fitter, rng = StepFitter(), random.Random(seed)
    for _ in range(steps):
        tokens, pairs, context = batch(rng)
        seconds = model.fixed + model.token * tokens + model.attention * pairs + model.cache * context
        fitter.learn(seconds * max(0.1, rng.gauss(1, noise)), 1, tokens, pairs, context)
    return fitter


@pytest.mark.parametrize("true", [StepModel(5e-3, 2e-5, 3e-9, 4e-7), StepModel(8e-4, 1e-4, 0.0, 1e-6),
                                  StepModel(0.0, 5e-5, 1e-8, 0.0)])
def test_the_fit_finds_what_the_steps_were_made_of(true: StepModel) -> None:
    fitter, rng = taught(true, 4_000, noise=0.05), random.Random(2)
    for _ in range(50):
        tokens, pairs, context = batch(rng)
        want = true.fixed + true.token * tokens + true.attention * pairs + true.cache * context
        m = fitter.model
        got = m.fixed + m.token * tokens + m.attention * pairs + m.cache * context
        assert got == pytest.approx(want, rel=0.1)


def test_a_fit_says_its_error_and_that_there_is_none_before_enough_steps() -> None:
    true = StepModel(5e-3, 2e-5, 3e-9, 4e-7)
    young = taught(true, 100)
    assert (young.fitted, young.fit(), young.method, young.model) == (False, None, "step-shapley-prior", PRIOR)
    noisy, exact = taught(true, 4_000, noise=0.2).fit(), taught(true, 4_000).fit()
    assert noisy is not None and exact is not None
    assert 0.1 < noisy.error_ratio < 0.25
    assert exact.error_ratio < 0.03
    assert taught(true, 300).method == "step-shapley-fit"


def test_load_that_never_varies_leaves_the_ratios_of_the_prior() -> None:
    fitter = StepFitter()
    for _ in range(2_000):
        fitter.learn(0.01, 1, 8, 8_000.0, 8_000)
    found = fitter.model
    assert found.token / found.fixed == pytest.approx(PRIOR.token / PRIOR.fixed, rel=0.3)
    whole = found.fixed + found.token * 8 + found.attention * 8_000 + found.cache * 8_000
    assert whole == pytest.approx(0.01, rel=0.02)


def test_a_step_that_something_else_held_up_does_not_spoil_the_fit() -> None:
    fitter = taught(StepModel(5e-3, 2e-5, 3e-9, 4e-7), 2_000)
    before = fitter.model
    fitter.learn(60.0, 1, 8, 8_000.0, 8_000)
    for _ in range(64):
        fitter.learn(5.3e-3, 1, 8, 800.0, 800)
    assert fitter.model.fixed == pytest.approx(before.fixed, rel=0.2)


def test_the_newest_steps_count_most() -> None:
    fitter, rng = taught(StepModel(5e-3, 2e-5, 3e-9, 4e-7), 2_000), random.Random(3)
    for _ in range(60_000):
        tokens, pairs, context = batch(rng)
        fitter.learn(2e-3 + 1e-5 * tokens, 1, tokens, pairs, context)
    assert fitter.model.fixed == pytest.approx(2e-3, rel=0.15)


STEPS = st.lists(st.tuples(st.floats(1e-6, 10), st.integers(1, 3), st.integers(1, 10_000), st.floats(0, 1e9),
                           st.integers(0, 10**7)), min_size=1, max_size=12)


@settings(deadline=None)
@given(STEPS)
def test_whatever_comes_no_coefficient_is_negative_and_cache_never_dearer_than_computing(steps) -> None:
    fitter = StepFitter()
    for step in steps * 200:
        fitter.learn(*step)
    m = fitter.model
    assert min(m.fixed, m.token, m.attention, m.cache) >= 0
    assert m.token >= m.cache
    assert m.fixed + m.token + m.attention + m.cache > 0


VECTORS = st.lists(st.floats(-10, 10), min_size=4, max_size=4)


@given(st.lists(VECTORS, min_size=6, max_size=6), VECTORS, VECTORS)
def test_the_least_squares_solution_has_no_better_neighbour(rows, target, other) -> None:
    matrix = [[sum(r[i] * r[j] for r in rows) + (1.0 if i == j else 0.0) for j in range(4)] for i in range(4)]
    found = nonnegative(matrix, target)

    def value(x) -> float:
        return sum(x[i] * matrix[i][j] * x[j] for i in range(4) for j in range(4)) / 2 - sum(
            a * b for a, b in zip(x, target, strict=True))

    assert min(found) >= 0
    assert value(found) <= value([abs(v) for v in other]) + 1e-6
    for step in (1e-3, -1e-3):
        for i in range(4):
            near = [max(0.0, v + step * (j == i)) for j, v in enumerate(found)]
            assert value(found) <= value(near) + 1e-9


def test_parts_add_up_to_the_whole_step() -> None:
    works = [(1, 100), (1, 4_000), (512, 0), (3, 7)]
    m = StepModel(5e-3, 2e-5, 3e-9, 4e-7)
    pairs = sum(n * (c + (n - 1) / 2) for n, c in works)
    whole = m.fixed + m.token * sum(n for n, _ in works) + m.attention * pairs + m.cache * sum(c for _, c in works)
    assert sum(m.part(n, c, len(works)) for n, c in works) == pytest.approx(whole)


@given(st.integers(1, 9_000), st.integers(0, 100_000), st.integers(1, 64), st.data())
def test_what_is_lost_is_part_of_what_is_paid(tokens: int, context: int, requests: int, data) -> None:
    lost, redone = data.draw(st.integers(0, tokens)), data.draw(st.booleans())
    part = PRIOR.part(tokens, context, requests)
    assert 0 <= PRIOR.wasted(tokens, context, requests, lost, redone) <= part * (1 + 1e-9)
    assert PRIOR.wasted(tokens, context, requests, tokens, True) == part
