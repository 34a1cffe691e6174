"""Break-even: the worked example of the literature, and what the formula must do whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.costs.breakeven import Shape, break_even, breakeven, capacity, prefill_seconds, step_seconds
from serving.costs.figures import percent
from serving.fleet.records import StepFit

FIT = StepFit(0.012, 4e-5, 3e-9, 6e-8, 5000, 0.03)
MEAN = (512, 256)


def at_api(input_per_mtok: float, output_per_mtok: float) -> float:
    return (MEAN[0] * input_per_mtok + MEAN[1] * output_per_mtok) / 1e6


def qwen(requests_per_s: float = 14.4):
    """Qwen3-30B-A3B in FP8 on one H100, as measured elsewhere."""
    apis = {"hosted": at_api(0.12, 0.50), "frontier": at_api(1, 5), "cheap": at_api(0.10, 0.50)}
    roles = {"hosted": "same_model_hosted", "cheap": "cheapest_proprietary", "frontier": "frontier"}
    return break_even("qwen3-30b-a3b", 2.95, 1.3, 28.8, requests_per_s, apis, roles)


def test_the_known_example_comes_out() -> None:
    hosted, cheap, frontier = qwen().against
    assert percent(hosted.breakeven) == "19.5%"
    assert percent(frontier.breakeven) == "2.1%" and f"{frontier.for_saving:.0%}" == "21%"
    assert frontier.saving_possible
    assert cheap.possible and not cheap.saving_possible and cheap.for_saving > 1


def test_comparators_stand_in_the_order_of_their_roles() -> None:
    assert [a.name for a in qwen().against] == ["hosted", "cheap", "frontier"]


def test_at_break_even_both_cost_the_same_and_at_the_saving_a_tenth() -> None:
    found = qwen()
    for a in found.against:
        assert found.usd_at(a.breakeven) == pytest.approx(a.usd_per_request)
        assert found.usd_at(a.for_saving) == pytest.approx(0.1 * a.usd_per_request)


def test_the_saving_of_today_is_that_of_todays_utilisation() -> None:
    found = qwen(14.4)
    assert found.utilisation == 0.5
    for a in found.against:
        assert a.saving_now == pytest.approx(1 - found.usd_at(0.5) / a.usd_per_request)
    assert all(a.saving_now is None for a in qwen(0.0).against)


def test_an_api_that_costs_nothing_has_no_break_even() -> None:
    assert breakeven(1.0, 1.0, 1.0, 0.0) is None
    (only,) = break_even("m", 1.0, 1.0, 1.0, 0.5, {"free": 0.0}, {}).against
    assert not only.possible and only.for_saving is None and only.saving_now is None


def test_capacity_is_the_time_that_a_request_needs_by_the_step_model() -> None:
    shape = Shape(100, 40, 11)
    step = 0.012 + 8 * (4e-5 + (3e-9 + 6e-8) * 105)
    assert step_seconds(FIT, 8, 105) == pytest.approx(step)
    prefill = 4e-5 * 60 + 3e-9 * 60 * (40 + 59 / 2) + 6e-8 * 40
    assert prefill_seconds(FIT, shape) == pytest.approx(prefill)
    assert capacity(FIT, shape, 8) == pytest.approx(1 / (prefill + 10 * step / 8))


def test_requests_without_an_answer_still_need_a_step() -> None:
    shape = Shape(100, 0, 0)
    assert capacity(FIT, shape, 4) == pytest.approx(1 / (prefill_seconds(FIT, shape) + 0.012 / 4))


def test_a_shape_without_tokens_has_no_capacity() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        capacity(StepFit(0, 0, 0, 0), Shape(0, 0, 0), 1)


shapes = st.builds(Shape, st.floats(1, 5000), st.just(0.0), st.floats(2, 2000))


@given(shapes, st.integers(1, 256))
def test_more_at_once_is_never_less_capacity(shape: Shape, batch: int) -> None:
    assert capacity(FIT, shape, batch + 1) >= capacity(FIT, shape, batch) * (1 - 1e-12)


@given(shapes, st.floats(0, 1))
def test_a_cached_prompt_is_never_less_capacity(shape: Shape, share: float) -> None:
    cached = Shape(shape.prompt, shape.prompt * share, shape.completion)
    assert capacity(FIT, cached, 16) >= capacity(FIT, shape, 16) * (1 - 1e-12)


@given(st.floats(0.01, 100), st.floats(1, 3), st.floats(0.01, 1000), st.floats(1e-6, 10), st.floats(1.1, 10))
def test_it_is_linear_in_the_price_and_falls_with_the_apis(price: float, k: float, mu: float, api: float,
                                                           by: float) -> None:
    one = breakeven(price, k, mu, api)
    assert one is not None
    assert breakeven(price * by, k, mu, api) == pytest.approx(one * by)
    assert breakeven(price, k, mu, api * by) == pytest.approx(one / by)
