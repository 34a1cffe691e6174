"""What a replica keeps of responses: the newest, within number and weight."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from serving.engines.stored import Newest, _weight, bound


def test_the_oldest_is_forgotten_first() -> None:
    kept = Newest(3)
    for n in range(5):
        kept[f"r{n}"] = n
    assert list(kept) == ["r2", "r3", "r4"]
    kept["r2"] = "again"  # the newest now
    kept["r5"] = 5
    assert list(kept) == ["r4", "r2", "r5"]


def test_heavy_ones_push_more_out_and_the_newest_always_stays() -> None:
    kept = Newest(100, heaviest=1000)
    for n in range(5):
        kept[f"r{n}"] = "x" * 400
    assert list(kept) == ["r3", "r4"]
    kept["huge"] = "x" * 5000
    assert list(kept) == ["huge"]


ACTIONS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["set", "delete"]), st.integers(0, 300)))


@given(ACTIONS, st.integers(1, 4), st.integers(64, 1000))
def test_its_bounds_hold_and_its_sums_are_right(actions, most: int, heaviest: int) -> None:
    kept = Newest(most, heaviest)
    for key, what, size in actions:
        if what == "set":
            kept[key] = "x" * size
            assert kept[key] == "x" * size
        elif key in kept:
            del kept[key]
        weight = sum(map(_weight, kept.values()))
        assert len(kept) <= most and (weight <= heaviest or len(kept) == 1)
        assert (kept._weight, set(kept._weights)) == (weight, set(kept))


def test_texts_count_wherever_they_are() -> None:
    deep = SimpleNamespace(content=[{"type": "input_text", "text": "x" * 10_000}], other=None)
    assert 10_000 < _weight({"messages": [deep]}) < 11_000


def test_a_model_that_does_not_generate_has_no_stores() -> None:
    bound(None)
    serving = SimpleNamespace()
    bound(serving)
    assert {type(serving.response_store), type(serving.msg_store), type(serving.event_store)} == {Newest}
