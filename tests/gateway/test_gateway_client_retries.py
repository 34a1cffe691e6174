"""OpenAI's client tries again when it is told to, and when it is told to: after the answer's Retry-After."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import openai
import pytest
import pytest_asyncio
from fake_replica import Exchange, answers
from gateway_rig import CHAT, KEY, Rig

REFUSED = b'{"error": {"message": "later", "type": "rate_limit_error", "param": null, "code": 429}}'


@pytest_asyncio.fixture
async def own_rig() -> AsyncIterator[Rig]:
    made = await Rig().start()
    yield made
    await made.close()


def first(status: int, calls: list[float]) -> Callable[..., object]:
    """A replica that refuses the first request and answers from then on."""
    good = answers()

    async def run(exchange: Exchange) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            await exchange.whole(status, REFUSED, retry_after="1")
        else:
            await good(exchange)

    return run


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_tried_again_when_it_says(own_rig: Rig, status: int) -> None:
    calls: list[float] = []
    await own_rig.replica(first(status, calls))  # type: ignore[arg-type]
    async with openai.AsyncOpenAI(base_url=f"{own_rig.url}/v1", api_key=KEY, max_retries=1) as client:
        answer = await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "Hello wörld!"
    assert len(calls) == 2 and 0.95 < calls[1] - calls[0] < 3, "not after its Retry-After of 1 s"
    assert [(await own_rig.record()).code for _ in calls] == [status, 200]


async def test_a_fleet_without_replicas_says_when_to_come_back(own_rig: Rig) -> None:
    async with openai.AsyncOpenAI(base_url=f"{own_rig.url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert refused.value.code == "no_replica" and int(refused.value.response.headers["retry-after"]) >= 1
    assert (await own_rig.record()).code == 503
