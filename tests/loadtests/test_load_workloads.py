from __future__ import annotations

import pytest
from load_samples import CHAT, CONVERSATION, make_scenario

from loadtests.arrivals import schedule
from loadtests.workloads import body_of, system_prompt, text_of, user_message


@pytest.mark.parametrize("words", [1, 5, 40, 300])
def test_text_has_the_wanted_length_and_depends_on_the_seed(words):
    assert len(text_of(words, 1).split()) == words
    assert text_of(words, 1) == text_of(words, 1)
    if words >= 5:
        assert text_of(words, 1) != text_of(words, 2)


def test_a_prompt_is_shorter_in_words_than_in_tokens():
    scenario = make_scenario(words_per_token=0.5)
    arrival = schedule(scenario)[0]
    words = len(user_message(scenario, arrival.turns[0])["content"].split())
    assert words == round(arrival.turns[0].prompt_tokens * 0.5)


def test_conversations_of_one_model_share_their_system_prompt():
    models = {name: {"users": [CONVERSATION]} for name in "ab"}
    scenario = make_scenario(models=models)
    prompts = {}
    for arrival in schedule(scenario):
        prompts.setdefault(arrival.model, set()).add(system_prompt(scenario, arrival)["content"])
    assert len(prompts["a"]) == len(prompts["b"]) == 1
    assert prompts["a"] != prompts["b"]


def test_chat_users_have_no_system_prompt():
    scenario = make_scenario(models={"a": {"users": [CHAT]}})
    assert system_prompt(scenario, schedule(scenario)[0]) is None


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("streamed", [1.0, 0.0])
def test_body_asks_for_what_the_scenario_says(exact, streamed):
    users = [CHAT | {"stream_share": streamed}]
    extra = {"chat_template_kwargs": {"thinking": False}}
    scenario = make_scenario(models={"a": {"users": users, "extra_body": extra}}, exact_output=exact)
    arrival = schedule(scenario)[0]
    body = body_of(scenario, arrival, arrival.turns[0], [{"role": "user", "content": "hi"}])
    assert body["model"] == "a"
    assert body["max_tokens"] == arrival.turns[0].output_tokens
    assert body["chat_template_kwargs"] == {"thinking": False}
    assert body.get("ignore_eos") == (True if exact else None)
    assert body["stream"] is bool(streamed)
    assert body.get("stream_options") == ({"include_usage": True} if streamed else None)
