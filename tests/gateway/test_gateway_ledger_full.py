"""No room for records: by the fleet file's policy nothing new is taken, and what is under way ends as it should."""

from __future__ import annotations

import asyncio

import pytest
from fake_replica import ANSWER, SEEN, STREAM, streams
from gateway_rig import CHAT, STREAMED, Rig

ASKED = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT | {"max_tokens": 9},
    "/v1/embeddings": {"model": "qwen", "input": "x"},
    "/tokenize": {"model": "qwen", "prompt": "x"},
}


@pytest.mark.parametrize("path", ASKED)
async def test_a_request_is_refused_until_there_is_room_again(rig: Rig, path: str) -> None:
    replica = await rig.replica()
    rig.accepting = False
    async with rig.post(ASKED[path], path) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        error = (await answer.json())["error"]
        assert "cannot be written down" in error["message"]
        assert error.get("code") == (None if path == "/v1/messages" else "ledger_full")
    assert replica.asked == []
    assert rig.records.empty(), "there is no room for its own record either"
    record, cost = rig.meter.answers[-1]
    assert (record.code, record.outcome, record.tenant, cost) == (503, "failed", "demo", None)  # counted it is
    rig.accepting = True
    async with rig.post(ASKED[path], path) as answer:
        assert (answer.status, await answer.read()) == (200, ANSWER)
    assert (await rig.record()).code == 200


async def test_what_is_under_way_ends_and_is_recorded(rig: Rig) -> None:
    gate = asyncio.Semaphore(1)
    await rig.replica(streams(STREAM, gate))
    async with rig.post(STREAMED) as answer:
        assert await answer.content.readexactly(len(SEEN[0])) == SEEN[0]
        rig.accepting = False
        for _ in STREAM:
            gate.release()
        assert await answer.content.read() == b"".join(SEEN[1:])
    assert (await rig.record()).outcome == "finished"


async def test_what_leaves_no_record_is_answered(rig: Rig) -> None:
    rig.accepting = False
    for path in ("/v1/models", "/v1/models/qwen", "/healthz"):
        async with rig.session.get(path) as answer:
            assert answer.status == 200
    async with rig.session.get("/v1/responses/resp_x") as answer:
        assert answer.status == 404  # it is looked for, and not there


async def test_who_may_not_ask_hears_that_first(rig: Rig) -> None:
    rig.accepting = False
    async with rig.post(CHAT, headers={"authorization": "Bearer flt_wrong"}) as answer:
        assert answer.status == 401
    async with rig.post(CHAT, "/v1/nothing") as answer:
        assert answer.status == 404
