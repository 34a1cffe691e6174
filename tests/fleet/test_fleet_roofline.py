"""The roofline: what limits a step, what grows with what, and an example computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.hardware import SPECS
from serving.fleet.roofline import (
    AcceleratorSpec,
    Efficiency,
    ModelShape,
    Work,
    decode_seconds,
    prefill_seconds,
    rates,
    step_model,
    step_seconds,
)

IDEAL = Efficiency(compute=1, memory=1, link=1, step_s=0, message_s=0)
DEVICE = AcceleratorSpec("made up", 80e9, 1e12, {"bf16": 1e14, "fp8": 2e14}, 1e11)
DENSE = ModelShape("dense", layers=10, hidden=1000, shared_parameters=1e9, shared_bytes=2e9, attention_flops=4e5,
                   cache_bytes=1e5)
MOE = ModelShape("moe", 10, 1000, 1e8, 2e8, 4e5, 1e5, expert_parameters=9e9, expert_bytes=18e9, experts=90,
                 experts_per_token=10)


def test_one_decoding_request_waits_for_the_weights() -> None:
    # 2 GB of weights and 1,001 tokens of 100 kB, at 1 TB/s; 2 GFLOP at 100 TFLOP/s would be 20 µs
    assert decode_seconds(DENSE, DEVICE, 1, 1000, 1, IDEAL) == pytest.approx((2e9 + 1001 * 1e5) / 1e12)


def test_a_long_prompt_waits_for_the_multiplications() -> None:
    tokens = 4000
    flops = 2 * 1e9 * tokens + tokens * (tokens - 1) / 2 * 4e5
    assert prefill_seconds(DENSE, DEVICE, tokens, 0, 1, IDEAL) == pytest.approx(flops / 1e14)


def test_smaller_numbers_multiply_faster_where_the_device_has_them() -> None:
    narrow = ModelShape("fp8", 10, 1000, 1e9, 1e9, 4e5, 1e5, precision="fp8")
    other = ModelShape("int4", 10, 1000, 1e9, 1e9, 4e5, 1e5, precision="int4")
    assert DEVICE.peak(narrow.precision) == 2e14 and DEVICE.peak(other.precision) == 1e14


def test_few_tokens_touch_few_experts() -> None:
    assert MOE.active_parameters == pytest.approx(1e8 + 1e9)
    assert MOE.weight_bytes_read(1) == pytest.approx(2e8 + 2e9)
    assert MOE.weight_bytes_read(10_000) == pytest.approx(2e8 + 18e9)
    assert MOE.weight_bytes_read(2) == pytest.approx(2e8 + 18e9 * (1 - (8 / 9) ** 2))


def test_what_lies_outside_the_window_costs_nothing() -> None:
    shape = ModelShape("windowed", 10, 1000, 1e9, 2e9, 0, 0, window=128, window_flops=4e5, window_bytes=1e5)
    near, far = (decode_seconds(shape, DEVICE, 8, context, 1, IDEAL) for context in (128, 100_000))
    assert near == pytest.approx(far)


def test_a_state_costs_the_same_at_any_length() -> None:
    shape = ModelShape("linear", 10, 1000, 1e9, 2e9, 0, 0, state_bytes=1e6)
    assert decode_seconds(shape, DEVICE, 8, 10, 1, IDEAL) == decode_seconds(shape, DEVICE, 8, 10_000, 1, IDEAL)
    assert decode_seconds(shape, DEVICE, 8, 10, 1, IDEAL) == pytest.approx((2e9 + 16e6) / 1e12)


def test_devices_share_the_work_and_pay_for_talking() -> None:
    link = Efficiency(compute=1, memory=1, link=1, step_s=0, message_s=1e-5)
    alone, four = (decode_seconds(DENSE, DEVICE, 1, 1000, n, link) for n in (1, 4))
    messages = 2 * 10 * 1e-5 + 2 * 10 * 1000 * 2 * 2 * 3 / 4 / 1e11
    assert four == pytest.approx(alone / 4 + messages)


@given(st.integers(1, 64), st.integers(1, 4096), st.integers(1, 4096))
def test_more_work_never_takes_less(requests: int, context: int, more: int) -> None:
    for shape in (DENSE, MOE):
        step = decode_seconds(shape, DEVICE, requests, context)
        assert decode_seconds(shape, DEVICE, requests, context + more) >= step
        assert decode_seconds(shape, DEVICE, requests + 1, context) >= step
        assert prefill_seconds(shape, DEVICE, context + more) >= prefill_seconds(shape, DEVICE, context)


@given(st.integers(1, 64), st.integers(1, 4096))
def test_the_affine_model_is_the_slower_one_and_at_most_twice(requests: int, context: int) -> None:
    model = step_model(DENSE, DEVICE, 1, requests)
    affine = sum(model.part(1, context, requests) for _ in range(requests))
    exact = decode_seconds(DENSE, DEVICE, requests, context)
    assert exact <= affine * (1 + 1e-9) and affine <= 2 * exact


def test_rates_say_that_they_are_an_estimate() -> None:
    found = rates(DENSE, DEVICE, 16, 2000)
    assert found.estimate == "roofline" and found.decode == pytest.approx(16 * found.decode_per_request)
    assert found.prefill > found.decode


def test_no_work_takes_the_fixed_part_only() -> None:
    assert step_seconds(MOE, DEVICE, Work(0, 0, 0, 0)) == pytest.approx(0.002 + 2e8 / 0.7e12)


@pytest.mark.parametrize("name", SPECS)
def test_every_device_is_whole_and_says_where_from(name: str) -> None:
    spec = SPECS[name]
    assert spec.source and spec.memory > 1e10 and spec.bandwidth > 1e11
    assert all(peak >= spec.flops["bf16"] for peak in spec.flops.values())
