"""Any text goes through a tokenizer unchanged, and markers are single tokens."""

from __future__ import annotations

import pytest
from checkpoint_families import TRAINED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.checkpoints.recipe import corpus
from serving.checkpoints.recipes import RECIPES

# Lone surrogates are no characters: UTF-8 has no bytes for them.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
MARKED = st.lists(
    TEXT | st.sampled_from([token for r in RECIPES.values() for token in r.markers.control + r.markers.visible]),
    max_size=5,
).map("".join)


@pytest.mark.parametrize("family", TRAINED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT | MARKED)
def test_any_text_comes_back_unchanged(family: str, tokenizers: dict, text: str) -> None:
    tokenizer = tokenizers[family]
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("family", TRAINED)
def test_markers_are_single_tokens_and_only_control_markers_are_hidden(family: str, tokenizers: dict) -> None:
    tokenizer, markers = tokenizers[family], RECIPES[family].markers
    for token in markers.control + markers.visible:
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
    ids = tokenizer.encode("".join(markers.control + markers.visible), add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "".join(markers.visible)


def test_bos_is_put_before_bare_prompts_where_the_family_does_so(tokenizers: dict) -> None:
    begins = {family for family, t in tokenizers.items() if t.encode("soup")[0] == t.bos_token_id}
    assert begins == {"llama", "llama4", "deepseek-r1"}


def test_english_takes_few_tokens(tokenizers: dict) -> None:
    seen, unseen = (
        corpus()[:2000],
        "Could you show me a warmer jacket that arrives before the weekend, please?",
    )
    for tokenizer in tokenizers.values():
        assert len(tokenizer.encode(seen, add_special_tokens=False)) < len(seen) / 2.5
        assert len(tokenizer.encode(unseen, add_special_tokens=False)) < len(unseen) / 2
