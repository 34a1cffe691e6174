"""Each family's prompt for typical conversations, spelled out: markers are the contract with its parsers."""

from __future__ import annotations

from typing import Any

import pytest
from checkpoint_families import TRAINED

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Rain in Oslo?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def calling(arguments: Any, *more: Any) -> dict[str, Any]:
    calls = [
        {
            "id": f"functions.weather:{i}",
            "type": "function",
            "function": {"name": "weather", "arguments": given},
        }
        for i, given in enumerate((arguments, *more))
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(text: str, i: int = 0) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"functions.weather:{i}", "content": text}


@pytest.fixture
def prompt(tokenizers: dict):
    def render(family: str, *messages: dict[str, Any], go: bool = True, **options: Any) -> str:
        return tokenizers[family].apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=go, **options
        )

    return render


TYPICAL = {
    "qwen3": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nRain in Oslo?<|im_end|>\n"
    "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nRain in Oslo?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nRain in Oslo?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nRain in Oslo?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "deepseek-r1": "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Rain in Oslo?<｜Assistant｜>Yes."
    "<｜end▁of▁sentence｜>"
    "<｜User｜>Rain in Oslo?<｜Assistant｜><think>\n",
    "seed-oss": "<seed:bos>system\nBe brief.<seed:eos><seed:bos>user\nRain in Oslo?<seed:eos>"
    "<seed:bos>assistant\nYes.<seed:eos><seed:bos>user\nRain in Oslo?<seed:eos><seed:bos>assistant\n",
    "kimi-k2": "<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user"
    "<|im_middle|>Rain in Oslo?<|im_end|>"
    "<|im_assistant|>assistant<|im_middle|>Yes.<|im_end|><|im_user|>user<|im_middle|>Rain in Oslo?<|im_end|>"
    "<|im_assistant|>assistant<|im_middle|>",
}
TYPICAL |= dict.fromkeys(("qwen3-moe", "qwen3-embedding", "qwen3-reranker", "qwen3-next", "qwen3-vl"), TYPICAL["qwen3"])
TYPICAL["llama4"] = TYPICAL["llama"].replace("_header_id|>", "|>").replace("<|start|>", "<|header_start|>").replace(
    "<|end|>", "<|header_end|>").replace("<|eot_id|>", "<|eot|>")


@pytest.mark.parametrize("family", TRAINED)
def test_a_conversation(family: str, prompt) -> None:
    answer = {"role": "assistant", "content": "Yes."}
    assert prompt(family, SYSTEM, ASK, answer, ASK) == TYPICAL[family]


UNTHINKING = {
    "qwen3": ({"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    "deepseek-r1": ({"thinking": False}, "<｜Assistant｜></think>"),
    "seed-oss": ({"thinking_budget": 0}, "</seed:cot_budget_reflect>\n</seed:think>"),
}


@pytest.mark.parametrize("family", UNTHINKING)
def test_thinking_can_be_switched_off(family: str, prompt) -> None:
    options, ending = UNTHINKING[family]
    assert prompt(family, ASK, **options).endswith(ending)
    on = {name: True if value is False else 200 for name, value in options.items()}
    assert not prompt(family, ASK, **on).endswith(ending)


@pytest.mark.parametrize("family", TRAINED)
def test_the_answer_is_opened_only_when_asked_for(family: str, prompt) -> None:
    closed, opened = prompt(family, ASK, go=False), prompt(family, ASK, go=True)
    assert opened.startswith(closed) and len(opened) > len(closed)


@pytest.mark.parametrize("family", TRAINED)
def test_tools_are_told_before_the_question_only_if_given(family: str, prompt) -> None:
    told = prompt(family, SYSTEM, ASK, tools=[TOOL])
    assert '"city"' in told and told.index('"city"') < told.index("Rain in Oslo?")
    assert told.count("Be brief.") == 1
    assert '"city"' not in prompt(family, SYSTEM, ASK)


ROUND_TRIP = {
    "qwen3": '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n'
    "</tool_call>"
    "<|im_end|>\n<|im_start|>user\n<tool_response>\nwet\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    "llama": "<|start_header_id|>assistant"
    '<|end_header_id|>\n\n{"name": "weather", "parameters": {"city": "Oslo"}}'
    "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nwet<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "deepseek-r1": "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
    "<｜tool▁sep｜>weather\n```json\n"
    '{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
    "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>wet<｜tool▁output▁end｜><｜tool▁outputs▁end｜>",
    "seed-oss": "<seed:bos>assistant\n\n<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo"
    "</parameter>\n"
    "</function>\n</seed:tool_call><seed:eos><seed:bos>tool\nwet<seed:eos><seed:bos>assistant\n",
    "kimi-k2": "<|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_call_begin|>"
    'functions.weather:0<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|>'
    "<|tool_calls_section_end|>"
    "<|im_end|><|im_system|>tool<|im_middle|>## Return of functions.weather:0\nwet<|im_end|>"
    "<|im_assistant|>assistant<|im_middle|>",
}
ROUND_TRIP |= dict.fromkeys(
    ("qwen3-moe", "qwen3-embedding", "qwen3-reranker", "qwen3-next", "qwen3-vl"), ROUND_TRIP["qwen3"])
ROUND_TRIP["llama4"] = (
    '<|header_start|>assistant<|header_end|>\n\n{"name": "weather", "parameters": {"city": "Oslo"}}<|eot|>'
    "<|header_start|>ipython<|header_end|>\n\nwet<|eot|><|header_start|>assistant<|header_end|>\n\n")


@pytest.mark.parametrize("family", TRAINED)
def test_a_tool_call_and_its_result(family: str, prompt) -> None:
    told = prompt(family, ASK, calling({"city": "Oslo"}), result("wet"), tools=[TOOL])
    assert told.endswith(ROUND_TRIP[family])


@pytest.mark.parametrize("family", sorted(set(TRAINED) - {"seed-oss"}))
def test_arguments_that_are_text_already_are_not_quoted_again(family: str, prompt) -> None:
    told = prompt(family, ASK, calling('{"city": "Oslo"}'), result("wet"), tools=[TOOL])
    assert told.endswith(ROUND_TRIP[family])


def test_qwen_puts_results_side_by_side_in_one_turn(prompt) -> None:
    told = prompt("qwen3", ASK, calling({}, {}), result("wet"), result("cold", 1))
    assert "<|im_start|>user\n<tool_response>\nwet\n</tool_response>\n<tool_response>\ncold\n</tool_response>" in told
    assert told.count("<tool_call>") == 2


def test_deepseek_goes_on_in_the_same_turn_after_results(prompt) -> None:
    told = prompt("deepseek-r1", ASK, calling({}, {}), result("wet"), result("cold", 1), thinking=False)
    assert told.endswith("<｜tool▁output▁begin｜>cold<｜tool▁output▁end｜><｜tool▁outputs▁end｜></think>")
    assert told.count("<｜tool▁outputs▁begin｜>") == told.count("<｜Assistant｜>") == 1
    answered = prompt("deepseek-r1", ASK, calling({}), result("wet"), {"role": "assistant", "content": "Yes."}, ASK)
    assert "<｜tool▁outputs▁end｜>Yes.<｜end▁of▁sentence｜><｜User｜>Rain" in answered


def test_llama_refuses_two_calls_in_a_turn(prompt) -> None:
    with pytest.raises(Exception, match="one tool call"):
        prompt("llama", ASK, calling({}, {}), result("wet"))


@pytest.mark.parametrize("family", ["qwen3", "deepseek-r1"])
def test_earlier_thoughts_are_dropped(family: str, prompt) -> None:
    answer = {"role": "assistant", "content": "<think>\nclouds\n</think>\n\nYes."}
    told = prompt(family, ASK, answer, ASK)
    assert "Yes." in told and "clouds" not in told


def test_qwen_keeps_thoughts_between_a_call_and_its_result(prompt) -> None:
    thinking = {**calling({}), "reasoning_content": "look it up"}
    assert "<think>\nlook it up\n</think>\n\n<tool_call>" in prompt("qwen3", ASK, thinking, result("wet"))


PICTURE = {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {}},
                                       {"type": "text", "text": "this?"}]}


@pytest.mark.parametrize(("family", "told"), [
    ("qwen3-vl", "<|im_start|>user\nWhat is<|vision_start|><|image_pad|><|vision_end|>this?<|im_end|>\n"),
    ("llama4", "<|header_start|>user<|header_end|>\n\nWhat is<|image|>this?<|eot|>"),
])
def test_a_picture_stands_where_it_was_given(family: str, told: str, prompt) -> None:
    assert told in prompt(family, PICTURE)
    parts = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert prompt(family, parts, ASK, tools=[TOOL]) == prompt(family, SYSTEM, ASK, tools=[TOOL])
