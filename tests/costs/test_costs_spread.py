"""What serves no single model is spread over the models to the nano-dollar."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.costs.spread import overheads

BILLS = st.dictionaries(st.sampled_from(["qwen", "llama", "r1"]), st.integers(0, 10**15), min_size=1)


@given(BILLS, st.integers(0, 10**15))
def test_the_parts_add_up_and_no_one_pays_twice(bills: dict[str, int], shared: int) -> None:
    parts = overheads(bills | {"": shared})
    assert set(parts) == set(bills) and sum(parts.values()) == shared
    assert all(part >= 0 for part in parts.values())


def test_who_costs_more_bears_more() -> None:
    assert overheads({"qwen": 300, "llama": 100, "": 40}) == {"qwen": 30, "llama": 10}


def test_without_overhead_or_without_models_there_is_nothing_to_spread() -> None:
    assert overheads({"qwen": 5}) == {"qwen": 0}
    assert overheads({"": 40}) == {}
