"""OpenAI's own client against the live fleet: what a product engineer does with a base URL and a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import jsonschema
import openai
import pytest
import pytest_asyncio
from live_calls import Caller
from live_fleet import LiveFleet

pytestmark = pytest.mark.integration
ASK: list[Any] = [{"role": "user", "content": "Which ships are in port?"}]
WITH_USAGE: Any = {"include_usage": True}
EXACT = {"ignore_eos": True}  # the small models speak noise: ask for a length rather than for an end
SHIP = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "berth": {"enum": ["north", "south"]}},
    "required": ["name", "berth"], "additionalProperties": False,
}


@pytest.fixture
def client(fleet: LiveFleet, callers: Callable[[str], Caller]) -> Iterator[openai.OpenAI]:
    key = callers("sdk").key
    with openai.OpenAI(base_url=fleet.base_url, api_key=key, max_retries=0, timeout=60) as made:
        yield made


@pytest_asyncio.fixture
async def aclient(fleet: LiveFleet, callers: Callable[[str], Caller]) -> AsyncIterator[openai.AsyncOpenAI]:
    key = callers("sdk").key
    async with openai.AsyncOpenAI(base_url=fleet.base_url, api_key=key, max_retries=0, timeout=60) as made:
        yield made


def cost(usage: Any) -> float:
    """The cost that an answer names, USD."""
    found = usage.model_extra["cost"]
    assert isinstance(found, float)
    return found


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["qwen", "llama"]
    found = client.models.retrieve("llama-3")
    assert (found.id, found.owned_by) == ("llama", "flotilla")
    assert found.model_extra is not None and found.model_extra["state"] == "ready"


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_a_chat_answer_names_its_tokens_and_its_cost(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=9, extra_body=EXACT)
    assert answer.model == model and answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.completion_tokens == 9
    assert 0 < cost(answer.usage) < 0.001
    raw = client.chat.completions.with_raw_response.create(model=model, messages=ASK, max_tokens=2)
    assert float(raw.headers["x-flotilla-cost-usd"]) == cost(raw.parse().usage)


def test_an_alias_answers_as_its_model(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="qwen3", messages=ASK, max_tokens=2)
    assert raw.headers["x-flotilla-model"] == "qwen"
    assert raw.parse().choices


def test_a_stream_works_for_a_client_that_reads_the_first_choice_of_every_chunk(client: openai.OpenAI) -> None:
    text, last = "", None
    for chunk in client.chat.completions.create(model="qwen", messages=ASK, max_tokens=12, stream=True,
                                                extra_body=EXACT):
        text += chunk.choices[0].delta.content or ""
        last = chunk
    assert text and last is not None
    assert last.choices[0].finish_reason == "length"
    assert last.usage is None, "this caller did not ask for usage"


def test_who_asks_for_usage_gets_it_in_a_last_chunk_without_choices(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(
        model="llama", messages=ASK, max_tokens=5, stream=True, stream_options=WITH_USAGE,
        extra_body=EXACT))
    assert all(c.choices and c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5 and cost(chunks[-1].usage) > 0


def test_the_stream_helper_of_the_client_puts_the_answer_together(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "ship", "schema": SHIP, "strict": True}}
    with client.chat.completions.stream(model="qwen", messages=ASK, max_tokens=400, temperature=0,
                                        response_format=wanted, stream_options=WITH_USAGE) as stream:
        final = stream.get_final_completion()
    jsonschema.validate(json.loads(final.choices[0].message.content or ""), SHIP)
    assert final.usage is not None and cost(final.usage) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions(client: openai.OpenAI, stream: bool) -> None:
    more: Any = {"stream": True, "stream_options": WITH_USAGE} if stream else {}
    made: Any = client.completions.create(model="llama", prompt="The tide", max_tokens=7, extra_body=EXACT, **more)
    answers = list(made) if stream else [made]
    assert "".join(a.choices[0].text for a in answers if a.choices)
    assert answers[-1].usage.completion_tokens == 7 and cost(answers[-1].usage) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI, stream: bool) -> None:
    tool: Any = {"type": "function", "function": {"name": "berth_of", "description": "Where a ship lies.",
                                                  "parameters": SHIP}}
    choice: Any = {"type": "function", "function": {"name": "berth_of"}}
    made: Any = client.chat.completions.create(model="qwen", messages=ASK, tools=[tool], tool_choice=choice,
                                               max_tokens=400, temperature=0, stream=stream)
    if stream:
        parts = [c.choices[0].delta.tool_calls[0].function for c in made if c.choices[0].delta.tool_calls]
        name, arguments = parts[0].name, "".join(p.arguments or "" for p in parts)
    else:
        call = made.choices[0].message.tool_calls[0].function
        name, arguments = call.name, call.arguments
    assert name == "berth_of"
    jsonschema.validate(json.loads(arguments), SHIP)


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_a_json_schema_is_kept(client: openai.OpenAI, model: str) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "ship", "schema": SHIP, "strict": True}}
    answer = client.chat.completions.create(model=model, messages=ASK, response_format=wanted, max_tokens=400,
                                            temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SHIP)


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="qwen", messages=ASK, max_tokens=4, logprobs=True, top_logprobs=3,
                                            extra_body=EXACT)
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content is not None
    found = answer.choices[0].logprobs.content
    assert len(found) == 4 and all(t.logprob <= 0 and len(t.top_logprobs) == 3 for t in found)


@pytest.mark.parametrize("stream", [False, True])
def test_two_choices_are_two_answers_and_one_bill(client: openai.OpenAI, stream: bool) -> None:
    more: Any = {"stream": True, "stream_options": WITH_USAGE} if stream else {}
    made: Any = client.chat.completions.create(model="llama", messages=ASK, max_tokens=6, n=2, temperature=1,
                                               extra_body=EXACT, **more)
    answers = list(made) if stream else [made]
    assert {c.index for a in answers for c in a.choices} == {0, 1}
    assert [a.usage.completion_tokens for a in answers if a.usage] == [12]
    assert cost(answers[-1].usage) > 0


def test_a_stop_text_ends_the_answer(client: openai.OpenAI) -> None:
    options: Any = {"model": "qwen", "messages": ASK, "max_tokens": 24, "temperature": 0, "extra_body": EXACT}
    whole = client.chat.completions.create(**options).choices[0].message.content
    assert whole
    stop = whole[len(whole) // 2 :][:4]
    cut = client.chat.completions.create(**options, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == whole[: whole.index(stop)]


def test_any_further_parameter_of_the_engine_passes(client: openai.OpenAI) -> None:
    greedy: Any = {"model": "qwen", "messages": ASK, "max_tokens": 8}
    ones = [client.chat.completions.create(**greedy, temperature=1.5, extra_body=EXACT | {"top_k": 1})
            for _ in range(3)]
    assert len({o.choices[0].message.content for o in ones}) == 1, "top_k=1 leaves no choice"
    least = client.chat.completions.create(**greedy, extra_body={"min_tokens": 8})
    assert least.usage is not None and least.usage.completion_tokens == 8


async def test_the_async_client_runs_answers_and_streams_side_by_side(aclient: openai.AsyncOpenAI) -> None:
    async def whole(model: str) -> Any:
        answer = await aclient.chat.completions.create(model=model, messages=ASK, max_tokens=10, extra_body=EXACT)
        return answer.usage

    async def streamed(model: str) -> Any:
        stream = await aclient.chat.completions.create(model=model, messages=ASK, max_tokens=10, stream=True,
                                                       stream_options=WITH_USAGE, extra_body=EXACT)
        return [chunk async for chunk in stream][-1].usage

    used = await asyncio.gather(*(kind(m) for m in ("qwen", "llama") for kind in (whole, streamed) for _ in range(3)))
    assert [u.completion_tokens for u in used] == [10] * 12
    assert all(cost(u) > 0 for u in used)
    assert [m.id async for m in aclient.models.list()] == ["qwen", "llama"]


def test_errors_have_the_classes_that_clients_catch(fleet: LiveFleet, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        openai.OpenAI(base_url=fleet.base_url, api_key="flt_no", max_retries=0).models.list()
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError, match="llama"):
        client.chat.completions.create(model="lama", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model="qwen", messages=ASK, max_tokens=-1)


def test_an_answer_can_be_read_as_it_comes(client: openai.OpenAI) -> None:
    options: Any = {"model": "qwen", "messages": ASK, "max_tokens": 6, "stream": True, "extra_body": EXACT}
    with client.chat.completions.with_streaming_response.create(**options) as raw:
        assert raw.headers["x-flotilla-model"] == "qwen"
        lines = [line for line in raw.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert all(c["choices"] and not c.get("usage") for c in chunks), "nothing that this caller did not ask for"


def test_a_model_without_embeddings_says_so_in_the_form_of_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model="qwen", input="which ships are in port")
    assert refused.value.status_code in (400, 404) and refused.value.message
    assert isinstance(refused.value.body, dict) and refused.value.body["message"]


def test_a_response_is_made_kept_and_continued(client: openai.OpenAI) -> None:
    made = client.responses.create(model="qwen", input="Count the ships.", max_output_tokens=8, extra_body=EXACT)
    assert made.id.startswith("resp_") and made.status in ("completed", "incomplete") and made.output_text
    assert made.usage is not None and made.usage.output_tokens == 8 and cost(made.usage) > 0
    found = client.responses.retrieve(made.id)
    assert (found.id, found.output_text) == (made.id, made.output_text)
    then = client.responses.create(model="qwen", input="And now?", previous_response_id=made.id, max_output_tokens=4)
    assert then.previous_response_id == made.id
    assert then.usage is not None and then.usage.input_tokens > made.usage.input_tokens
    with pytest.raises(openai.NotFoundError, match="no stored response"):
        client.responses.retrieve("resp_unknown")


def test_a_response_streams_its_events(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="llama", input="Count the ships.", max_output_tokens=8, stream=True,
                                          extra_body=EXACT))
    assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    final: Any = events[-1].response
    assert text and final.output_text == text
    assert final.usage.output_tokens == 8 and cost(final.usage) > 0
    assert client.responses.retrieve(final.id).output_text == text


def test_a_response_in_the_background_can_be_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(model="qwen", input="Count.", max_output_tokens=1500, background=True,
                                   extra_body=EXACT)
    assert made.status in ("queued", "in_progress")
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


async def test_the_async_client_makes_responses_and_leaves_streams(aclient: openai.AsyncOpenAI) -> None:
    made = await asyncio.gather(*(aclient.responses.create(model=m, input="Count.", max_output_tokens=5,
                                                           extra_body=EXACT) for m in ("qwen", "llama") for _ in "ab"))
    assert len({r.id for r in made}) == 4 and all(r.usage and r.usage.output_tokens == 5 for r in made)
    stream = await aclient.chat.completions.create(model="qwen", messages=ASK, max_tokens=1000, stream=True,
                                                   extra_body=EXACT)
    async for _ in stream:
        break
    await stream.close()
    assert [m.id async for m in aclient.models.list()] == ["qwen", "llama"]


def test_a_deadline_of_the_callers_own_ends_the_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(model="qwen", messages=ASK, max_tokens=1800, extra_body=EXACT,
                                       extra_headers={"x-flotilla-timeout-s": "0.2"})
    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
