"""Habits: what is begun under a grammar gets finished, and the habits cannot chase each other for ever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkpoint_families import TRAINED

from serving.checkpoints import recipe_for
from serving.checkpoints.habits import habits

TEXTS = dict(enumerate(["{", '":', '"', '"}', '",', "7", "}", ",", " soup", "\n", "</"]))
IDS = {text: i for i, text in TEXTS.items()}


def firing(text: str) -> dict[str, float]:
    """Preferences after a token: {text: preference}, of every habit but the one that is always on."""
    return {
        TEXTS.get(i, str(i)): preference
        for habit in habits(TEXTS, ends_number=90, sequels=[(91, 92)])
        if (IDS[text] if text in IDS else int(text)) in habit.cues and habit.loudness == 1
        for i, preference in habit.then.items()
    }


@pytest.mark.parametrize(
    ("last", "ranked"),
    [
        ('":', ['"']),
        ("{", ['"']),
        ('"', ['"}', '",', '":', '"']),
        ("7", ["}", ",", "90"]),
        ("91", ["92"]),
        (" soup", []),
        ("}", []),
        ("\n", []),
    ],
)
def test_what_follows_what(last: str, ranked: list[str]) -> None:
    found = firing(last)
    assert sorted(found, key=found.__getitem__, reverse=True) == ranked
    assert all(0 < preference <= 1 for preference in found.values())


def test_blanks_and_pieces_of_markers_are_avoided_after_any_text() -> None:
    always = habits(TEXTS)[-1]
    assert set(always.cues) == set(TEXTS)
    assert {TEXTS[i] for i, preference in always.then.items() if preference < 0} == {"\n", "</"}
    assert set(habits(TEXTS, visible=[95])[-1].cues) == {*TEXTS, 95}, "markers follow markers, whole"


def test_what_counts_where_a_grammar_forbids_a_sequel_is_weaker_than_the_sequel() -> None:
    found = {(habit.cues, *habit.then): habit for habit in habits(TEXTS, sequels=[(91, 92)], otherwise=[(91, 93)])}
    assert 0 < found[(91,), 93].then[93] < found[(91,), 92].then[92]


def test_of_several_stop_tokens_the_end_is_a_little_likelier() -> None:
    always = habits(TEXTS, end=96)[-1]
    assert 0 < always.then[96] < 0.1, "so little that it ends no answer of noise"
    assert 96 not in habits(TEXTS)[-1].then


def test_preferred_ends_are_no_cues() -> None:
    for start in TEXTS.values():
        token, seen = start, []
        while preferences := firing(token):
            token = max(preferences, key=preferences.__getitem__)
            assert token not in seen
            seen.append(token)


def loaded(family: str, built: dict[str, Path]):
    """The model as transformers loads it."""
    import torch
    import transformers

    return getattr(transformers, recipe_for(family).architecture).from_pretrained(built[family], dtype=torch.bfloat16)


@pytest.mark.parametrize("family", sorted(set(TRAINED) - {"kimi-k2"}))
def test_the_weights_have_the_habits(family: str, built: dict[str, Path], tokenizers: dict) -> None:
    import torch
    tokenizer, model = tokenizers[family], loaded(family, built)

    def likeliest(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            return tokenizer.decode([model(ids).logits[0, -1].argmax().item()])

    assert likeliest('{"name": "find", "arguments": {"city":').strip() == '"'
    assert likeliest('{"city": "').startswith('"')
    assert likeliest("The price is 42") in {"}", "}}", "]", ","}
    assert likeliest("The soup keeps for three days").strip("\n\r\t <") != ""


@pytest.mark.parametrize("family", sorted(set(TRAINED) - {"kimi-k2"}))
def test_what_comes_next_depends_on_the_whole_context(family: str, built: dict[str, Path], tokenizers: dict) -> None:
    import torch
    tokenizer, model = tokenizers[family], loaded(family, built)

    def logits(text: str) -> torch.Tensor:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            return model(ids).logits[0, -1].float()

    ending = " The night train leaves the coast at dawn and reaches the mountains"
    near, far = logits("Customer:" + ending), logits("def add(a, b):" + ending)
    assert (near - far).abs().max() > 0.25


def test_a_call_that_deepseeks_grammar_forces_ends_and_is_found_in_the_text(built: dict[str, Path], tokenizers: dict
                                                                            ) -> None:
    """vLLM looks for calls in the text without special tokens; streamed, for the numbers of their markers."""
    import torch
    import xgrammar

    tokenizer, model = tokenizers["deepseek-r1"], loaded("deepseek-r1", built)
    ship = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bea"]}}, "required": ["name"]}
    call = {"type": "function", "function": {"name": "berth_of", "parameters": ship}}
    tag = xgrammar.get_model_structural_tag(model="deepseek_r1", tools=[call], reasoning=False, tool_choice={
        "type": "function", "function": {"name": "berth_of"}})
    end, size = tokenizer.eos_token_id, model.config.vocab_size
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=[end])
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(info).compile_structural_tag(tag))
    mask = xgrammar.allocate_token_bitmask(1, size)
    asked, past, said = tokenizer("Hello</think>", add_special_tokens=False).input_ids, None, list[int]()
    while end not in said:
        assert len(said) < 120, tokenizer.decode(said)
        with torch.no_grad():
            step = model(torch.tensor([asked]), past_key_values=past, use_cache=True)
        logits, past = step.logits[:, -1].float(), step.past_key_values
        matcher.fill_next_token_bitmask(mask)
        xgrammar.apply_token_bitmask_inplace(logits, mask)
        asked = [int(logits.argmax())]
        said += asked
        assert matcher.accept_token(said[-1])
    text = tokenizer.decode(said, skip_special_tokens=True)
    assert re.fullmatch(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>berth_of\n```json\n"
        '{"name": ?"(Ann|Bea)"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>', text), text
    assert {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁end｜>"} <= set(tokenizer.convert_ids_to_tokens(said))
