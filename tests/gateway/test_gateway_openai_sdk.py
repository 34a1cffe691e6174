"""The official client, as users have it, against the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from fake_replica import STREAM, USAGE, WITH_USAGE, answers, hangs, streams
from gateway_rig import KEY, Rig

ASK = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}


@pytest_asyncio.fixture
async def client(rig: Rig) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


async def test_a_chat(rig: Rig, client: openai.AsyncOpenAI) -> None:
    await rig.replica()
    answer = await client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello wörld!"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 3)
    assert answer.usage.cost == USAGE["cost"]
    raw = await client.chat.completions.with_raw_response.create(**ASK)
    assert float(raw.headers["x-flotilla-cost-usd"]) == raw.parse().usage.cost
    for _ in range(2):
        await rig.record()


async def test_a_streamed_chat(rig: Rig, client: openai.AsyncOpenAI) -> None:
    await rig.replica(streams(STREAM))
    stream = await client.chat.completions.create(**ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content for c in chunks) == "Hello wörld!"
    assert all(c.usage is None for c in chunks) and chunks[-1].choices[0].finish_reason == "stop"
    assert (await rig.record()).outcome == "finished"


async def test_a_streamed_chat_with_usage(rig: Rig, client: openai.AsyncOpenAI) -> None:
    await rig.replica(streams(WITH_USAGE))
    stream = await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    *chunks, last = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content for c in chunks) == "Hello wörld!"
    assert (last.choices, last.usage.completion_tokens, last.usage.cost) == ([], 3, USAGE["cost"])
    await rig.record()


async def test_the_blocking_client(rig: Rig) -> None:
    await rig.replica(streams(STREAM))

    def talk() -> str:
        with openai.OpenAI(base_url=f"{rig.url}/v1", api_key=KEY, max_retries=0) as client:
            assert [m.id for m in client.models.list()] == ["qwen", "llama"]
            return "".join(
                c.choices[0].delta.content for c in client.chat.completions.create(**ASK, stream=True)
            )

    assert await asyncio.to_thread(talk) == "Hello wörld!"
    await rig.record()


async def test_models(rig: Rig, client: openai.AsyncOpenAI) -> None:
    assert [m.id async for m in client.models.list()] == ["qwen", "llama"]
    assert (await client.models.retrieve("qwen3")).id == "qwen"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_errors_become_the_clients_own(rig: Rig, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean 'qwen'") as caught:
        await client.chat.completions.create(**ASK | {"model": "qwem"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(**ASK)
    assert (failed.value.status_code, failed.value.code) == (503, "no_replica")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="flt_wrong").chat.completions.create(**ASK)
    await rig.replica(
        answers(b'{"error": {"message": "too long", "type": "x", "param": null, "code": 400}}', 400)
    )
    with pytest.raises(openai.BadRequestError, match="too long"):
        await client.chat.completions.create(**ASK)
    for code in (404, 503, 400):
        assert (await rig.record()).code == code


async def test_a_broken_stream_is_an_error_and_not_half_an_answer(
    rig: Rig, client: openai.AsyncOpenAI
) -> None:
    await rig.replica(streams(STREAM[:2], then="hang_up"))
    found = []
    with pytest.raises(openai.APIError, match="broke off"):
        async for chunk in await client.chat.completions.create(**ASK, stream=True):
            found.append(chunk.choices[0].delta.content)
    assert found == ["Hello", " wörld"]
    assert (await rig.record()).outcome == "failed"


async def test_a_caller_that_stops_reading_stops_the_work(rig: Rig, client: openai.AsyncOpenAI) -> None:
    replica = await rig.replica(streams(STREAM[:2], then="hang"))
    stream = await client.chat.completions.create(**ASK, stream=True)
    async for _ in stream:
        await stream.close()
        break
    await asyncio.wait_for(replica.last.gone.wait(), 1)
    assert (await rig.record()).outcome == "aborted"


async def test_a_cancelled_call_stops_the_work(rig: Rig, client: openai.AsyncOpenAI) -> None:
    replica = await rig.replica(hangs)
    call = asyncio.ensure_future(client.chat.completions.create(**ASK))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    call.cancel()
    await asyncio.wait_for(replica.last.gone.wait(), 1)
    assert (await rig.record()).outcome == "aborted"
