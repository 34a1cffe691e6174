from __future__ import annotations

import json

import pytest
from load_samples import CHAT, CONVERSATION, make_scenario

from loadtests.arrivals import schedule
from loadtests.pictures import png_of
from loadtests.texts import text_of
from loadtests.workloads import Prompts

AGENT = CONVERSATION | {"kind": "agent", "result_tokens": {"kind": "constant", "value": 9}, "tool_share": 1.0}
SHOPPING = AGENT | {"kind": "shopping", "image": {"width": 32, "height": 48, "share": 1.0}}


@pytest.mark.parametrize("words", [1, 5, 40, 300, 20_000])
def test_text_has_the_wanted_length_and_depends_on_the_seed(words):
    assert len(text_of(words, 1).split()) == words
    assert text_of(words, 1) == text_of(words, 1)
    if words >= 5:
        assert text_of(words, 1) != text_of(words, 2)


def test_a_prompt_is_shorter_in_words_than_in_tokens():
    scenario = make_scenario(words_per_token=0.5)
    turn = schedule(scenario)[0].turns[0]
    assert len(Prompts(scenario).user(turn)["content"].split()) == round(turn.prompt_tokens * 0.5)


def test_conversations_of_one_model_share_their_system_prompt():
    scenario = make_scenario(models={name: {"users": [CONVERSATION]} for name in "ab"})
    prompts, found = Prompts(scenario), {}
    for arrival in schedule(scenario):
        found.setdefault(arrival.model, set()).add(prompts.system(arrival)["content"])
    assert len(found["a"]) == len(found["b"]) == 1
    assert found["a"] != found["b"]


def test_another_salt_says_other_words_of_the_same_length():
    scenario = make_scenario()
    turn = schedule(scenario)[0].turns[0]
    one, other = Prompts(scenario).user(turn)["content"], Prompts(scenario, 1).user(turn)["content"]
    assert one != other and len(one.split()) == len(other.split())


def test_chat_users_have_no_system_prompt():
    scenario = make_scenario(models={"a": {"users": [CHAT]}})
    assert Prompts(scenario).system(schedule(scenario)[0]) is None


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("streamed", [1.0, 0.0])
def test_body_asks_for_what_the_scenario_says(exact, streamed):
    users = [CHAT | {"stream_share": streamed}]
    extra = {"chat_template_kwargs": {"thinking": False}}
    scenario = make_scenario(models={"a": {"users": users, "extra_body": extra}}, exact_output=exact)
    arrival = schedule(scenario)[0]
    body = Prompts(scenario).body(arrival, arrival.turns[0], [{"role": "user", "content": "hi"}])
    assert body["model"] == "a"
    assert body["max_tokens"] == arrival.turns[0].output_tokens
    assert body["chat_template_kwargs"] == {"thinking": False}
    assert body.get("ignore_eos") == (True if exact else None)
    assert body["stream"] is bool(streamed)
    assert body.get("stream_options") == ({"include_usage": True} if streamed else None)


def test_an_agents_question_names_a_tool_and_the_next_request_brings_its_result():
    scenario = make_scenario(models={"a": {"users": [AGENT]}}, exact_output=True)
    arrival = schedule(scenario)[0]
    asked, brought = arrival.turns[:2]
    assert asked.tool and not asked.after_tool and brought.after_tool and brought.tool is None
    body = Prompts(scenario).body(arrival, asked, [])
    named = body["tool_choice"]["function"]["name"]
    assert named in [tool["function"]["name"] for tool in body["tools"]] and "ignore_eos" not in body
    assert Prompts(scenario).body(arrival, brought, [])["tool_choice"] == "none"
    assert json.dumps(body["tools"])


def test_a_shopper_shows_a_picture():
    scenario = make_scenario(models={"a": {"users": [SHOPPING]}})
    parts = Prompts(scenario).user(schedule(scenario)[0].turns[0])["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_picture_is_a_png_of_that_size():
    picture = png_of(33, 17, 1)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (33, 17)
    assert picture == png_of(33, 17, 1) != png_of(33, 17, 2)
