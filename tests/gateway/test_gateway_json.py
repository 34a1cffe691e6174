"""JSON of all kinds: the gateway reads of it what the engine will read, or refuses it."""

from __future__ import annotations

import json

import pytest
from gateway_rig import KEY, Rig
from raw_http import Caller, request, served


@pytest.mark.parametrize("body", [
    b'{"model": "qwen", "messages": [{"role": "user", "content": "' + b"\\u0000" * 10 + b'"}]}',
    b'{"model": "qwen", "seed": 1e400, "n": -0.0, "max_tokens": ' + b"9" * 400 + b"}",
    b'{"model": "other", "messages": [], "model": "qwen"}',
    b'{"model": "other", "messages": [], "mod\\u0065l": "qwen"}',
    b'{"m\\u006fdel": "qwen", "messages": "no list", "stream": null}',
    b'{"model": "qwen", "messages": [{"role": 5}, [], null]}',
    b'{"model": "qwen", "messages": null, "input": null, "prompt": null}',
    b'{"model": "qwen", "prompt": [[1, 2], [3]]}',
    b'{"model": "qwen", "x": {"model": "other"}}',
])
async def test_json_that_the_engine_has_to_judge(door: Rig, body: bytes) -> None:
    replica = await door.replica()
    await served(door, request(body))
    assert replica.last.body == body
    try:
        assert json.loads(replica.last.body)["model"] == "qwen", "the engine reads another model than the gateway"
    except ValueError:
        pass  # more digits than Python takes


@pytest.mark.parametrize("body", [
    b'{"model": "qwen", "model": 7}',
    b'{"model": "qwen", "prompt_cache_key": "\\ud800"}',
    b'{"model": "\\ud800"}',
    b'{"model": "' + b"q" * 5_000 + b'"}',
    b'\xef\xbb\xbf{"model": "qwen"}',
    b'{"model": "qwen", "messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"model": "qwen"}\x00',
    b"{'model': 'qwen'}",
    b'{"model": "qwen", "x": NaN}',
    b'{"model": "qwen",}',
])
async def test_json_that_is_none(door: Rig, body: bytes) -> None:
    replica = await door.replica()
    caller = await Caller.at(door, request(body))
    status, _, found = await caller.answer()
    assert (status, json.loads(found)["error"]["code"]) == (400, "malformed_request")
    assert len(found) < 1_000, "an error does not send everything back"
    assert (await door.record()).outcome == "rejected"
    assert replica.asked == []
    caller.leave()


async def test_anthropics_clients_are_refused_in_their_form(door: Rig) -> None:
    for data, kind in ((request(b"{"), "invalid_request_error"), (request(b'{"model": "x"}'), "not_found_error"),
                       (request().replace(KEY.encode(), b"nobody"), "authentication_error")):
        caller = await Caller.at(door, data.replace(b"/v1/chat/completions", b"/v1/messages"))
        found = json.loads((await caller.answer())[2])
        assert (found["type"], found["error"]["type"]) == ("error", kind)
        caller.leave()
        if kind != "authentication_error":
            await door.record()
