"""Presets: what an engine gets when a caller asks for one, at each endpoint, and what callers may not change."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_replica import SEEN, STREAM, streams
from gateway_rig import OF, Rig, fleet_file

Make = Callable[[str], Awaitable[Rig]]
FIND = {"name": "find", "description": "finds", "parameters": {"type": "object", "properties": {}}}
SHOP = {
    "model": "talk", "system": "You sell shoes.",
    "sampling": {"temperature": 0.2, "top_p": 0.9, "min_p": 0.1, "max_tokens": 40, "stop": ["END"]}, "tools": [FIND],
    "tool_choice": "find",
}
FIRM = {**SHOP, "tool_choice": None, "caller": {"system": "refuse", "sampling": "refuse", "tools": "refuse"}}
SOFT = {**SHOP, "caller": {"system": "add", "sampling": "win", "tools": "win"}}
YIELDING = {**SHOP, "caller": {"system": "win", "tools": "add"}}
PRESETS = {
    "shop": {"description": "helps customers", "versions": {"1": {"model": "llama", "system": "Old."}, "2": SHOP}},
    "firm": {"versions": {"a": FIRM}}, "soft": {"versions": {"a": SOFT}}, "yielding": {"versions": {"a": YIELDING}},
    "plain": {"versions": {"a": {"model": "qwen", "sampling": {"seed": 7}}}},
    "spread": {"versions": {"a": {"model": "route", "system": "Be short."}}},
}
HEARS = {"engine": {"tool_call_parser": "hermes"}}
FLEET = fleet_file(
    {"qwen": {**HEARS, "aliases": ["talk"], "fallback": ["llama"]}, "llama": HEARS},
    routes={"route": {"variants": {"qwen": 1, "llama": 1}}}, presets=PRESETS,
    tenants={"demo": {}, "only": {"models": ["shop"]}, "old": {"models": ["shop@1"]}, "other": {"models": ["qwen"]}})
USER = {"role": "user", "content": "boots?"}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COUNT = "/v1/messages/count_tokens"


async def sent(rig: Rig, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the replica got."""
    async with rig.post(body, path=path) as answer:
        assert answer.status == 200, await answer.text()
    await rig.record()
    return json.loads(rig.replicas[0].last.body)


async def refused(rig: Rig, path: str, body: dict[str, Any]) -> str:
    """What the gateway said instead of asking a replica."""
    async with rig.post(body, path=path) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    record = await rig.record()
    assert (record.code, record.preset != "") == (400, True)
    assert rig.replicas[0].asked == []
    return error["message"]


@pytest.fixture
async def rig(make_rig: Make) -> Rig:
    made = await make_rig(FLEET)
    await made.replica()
    return made


async def test_in_a_chat(rig: Rig) -> None:
    found = await sent(rig, CHAT, {"model": "shop", "messages": [USER], "n": 1})
    assert found == {
        "model": "qwen", "messages": [{"role": "system", "content": "You sell shoes."}, USER], "n": 1,
        "temperature": 0.2, "top_p": 0.9, "min_p": 0.1, "max_tokens": 40, "stop": ["END"],
        "tools": [{"type": "function", "function": FIND}],
        "tool_choice": {"type": "function", "function": {"name": "find"}},
    }


async def test_in_a_response(rig: Rig) -> None:
    found = await sent(rig, RESPONSES, {"model": "shop", "input": "boots?"})
    assert found.pop("request_id").startswith("resp_")
    assert found == {
        "model": "qwen", "input": "boots?", "instructions": "You sell shoes.", "temperature": 0.2, "top_p": 0.9,
        "max_output_tokens": 40, "stop": ["END"], "tools": [{"type": "function", **FIND}],
        "tool_choice": {"type": "function", "name": "find"},
    }


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_in_anthropics_messages(rig: Rig, path: str) -> None:
    body = {"model": "shop", "messages": [USER]} | ({"max_tokens": 9} if path == MESSAGES else {})
    tool = {"name": "find", "description": "finds", "input_schema": FIND["parameters"]}
    more = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 9, "stop_sequences": ["END"]} if path == MESSAGES else {}
    assert await sent(rig, path, body) == {
        "model": "qwen", "messages": [USER], "system": "You sell shoes.", "tools": [tool],
        "tool_choice": {"type": "tool", "name": "find"}, **more}


async def test_a_stream_is_rewritten_once_and_passes_as_it_comes(make_rig: Make) -> None:
    rig = await make_rig(FLEET)
    await rig.replica(streams(STREAM))
    async with rig.post({"model": "shop", "messages": [USER], "stream": True}) as answer:
        assert answer.headers["x-flotilla-preset"] == "shop@2"
        assert answer.headers["x-flotilla-model"] == "qwen"
        assert await answer.read() == b"".join(SEEN)
    found = json.loads(rig.replicas[0].last.body)
    assert (found["stream"], found["stream_options"]) == (True, {"include_usage": True})
    record = await rig.record()
    assert (record.preset, record.model, record.outcome) == ("shop@2", "qwen", "finished")


@pytest.mark.parametrize(("name", "model", "label"), [
    ("shop", "qwen", "shop@2"), ("shop@2", "qwen", "shop@2"), ("shop@1", "llama", "shop@1")])
async def test_versions(rig: Rig, name: str, model: str, label: str) -> None:
    found = await sent(rig, CHAT, {"model": name, "messages": [USER]})
    assert found["model"] == model
    async with rig.post({"model": name, "messages": [USER]}) as answer:
        assert answer.headers["x-flotilla-preset"] == label
    assert (await rig.record()).preset == label


async def test_a_version_that_is_not_there(rig: Rig) -> None:
    async with rig.post({"model": "shop@3", "messages": [USER]}) as answer:
        assert answer.status == 404
        assert "Did you mean 'shop@" in (await answer.json())["error"]["message"]
    await rig.record()


async def test_a_preset_over_a_route_keeps_each_conversation_at_one_variant(rig: Rig) -> None:
    found: dict[str, set[str]] = {}
    for n in range(40):
        body = {"model": "spread", "messages": [{"role": "user", "content": f"talk {n % 20}"}]}
        found.setdefault(f"talk {n % 20}", set()).add((await sent(rig, CHAT, body))["model"])
    assert all(len(models) == 1 for models in found.values())
    assert set().union(*found.values()) == {"qwen", "llama"}


async def test_its_fallback_gets_the_preset_too(make_rig: Make) -> None:
    rig = await make_rig(FLEET)
    replica = await rig.replica()
    rig.directory.only["qwen"] = []
    found = await sent(rig, CHAT, {"model": "shop", "messages": [USER]})
    assert (found["model"], found["messages"][0]["content"]) == ("llama", "You sell shoes.")
    assert replica.asked


# -- the caller's own


OWN_SYSTEM = [
    (CHAT, {"messages": [{"role": "system", "content": "Mine."}, USER]}),
    (CHAT, {"messages": [{"role": "developer", "content": "Mine."}, USER]}),
    (CHAT, {"messages": [USER, {"role": "system", "content": "Mine."}]}),
    (CHAT, {"messages": [{"role": "user", "content": "x", "ro\\u006ce": "system"}]}),
    (RESPONSES, {"input": "x", "instructions": "Mine."}),
    (RESPONSES, {"input": [{"role": "developer", "content": "Mine."}]}),
    (MESSAGES, {"messages": [USER], "max_tokens": 9, "system": "Mine."}),
    (MESSAGES, {"messages": [USER], "max_tokens": 9, "system": [{"type": "text", "text": "Mine."}]}),
    (MESSAGES, {"messages": [{"role": "system", "content": "Mine."}, USER], "max_tokens": 9}),
]


@pytest.mark.parametrize(("path", "body"), OWN_SYSTEM)
async def test_a_system_prompt_of_ones_own_is_refused(make_rig: Make, path: str, body: dict[str, Any]) -> None:
    rig = await make_rig(FLEET)
    await rig.replica()
    text = json.dumps({"model": "shop", **body}).replace("\\\\u", "\\u").encode()
    async with rig.post(text, path=path) as answer:
        assert answer.status == 400
        assert "'shop@2' has a system prompt of its own" in (await answer.json())["error"]["message"]
    await rig.record()
    assert rig.replicas[0].asked == []


@pytest.mark.parametrize(("path", "body", "at"), [
    (CHAT, {"messages": [{"role": "system", "content": "Mine."}, USER]}, ("messages", 0, "content")),
    (RESPONSES, {"input": "x", "instructions": "Mine."}, ("instructions",)),
    (MESSAGES, {"messages": [USER], "max_tokens": 9, "system": "Mine."}, ("system",)),
])
async def test_it_is_added_or_wins_where_the_preset_says_so(rig: Rig, path: str, body: dict[str, Any],
                                                            at: tuple[Any, ...]) -> None:
    for name, said in (("soft", "You sell shoes.\n\nMine."), ("yielding", "Mine.")):
        found: Any = await sent(rig, path, {"model": name, **body})
        for step in at:
            found = found[step]
        assert found == said


async def test_parts_stay_parts(rig: Rig) -> None:
    mine = [{"type": "text", "text": "Mine."}]
    found = await sent(rig, CHAT, {"model": "soft", "messages": [{"role": "system", "content": mine}, USER]})
    assert found["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "You sell shoes.\n\n"}, *mine]}, USER]


async def test_a_preset_without_a_system_prompt_leaves_the_callers(rig: Rig) -> None:
    mine = [{"role": "system", "content": "Mine."}, USER]
    assert await sent(rig, CHAT, {"model": "plain", "messages": mine}) == {
        "model": "qwen", "messages": mine, "seed": 7}


async def test_sampling_of_ones_own_wins(rig: Rig) -> None:
    mine = {"temperature": 1.5, "max_completion_tokens": 400, "top_p": None, "stop": []}
    found = await sent(rig, CHAT, {"model": "shop", "messages": [USER], **mine})
    assert (found["temperature"], found["max_completion_tokens"], found["top_p"]) == (1.5, 400, 0.9)
    assert "max_tokens" not in found, "the two say the same"
    assert found["stop"] == ["END"]


@pytest.mark.parametrize(("more", "named"), [
    ({"temperature": 0.9}, "temperature"), ({"max_tokens": 41}, "at most 40"),
    ({"max_completion_tokens": 41}, "max_completion_tokens"), ({"max_tokens": "9"}, "max_tokens"),
    ({"stop": ["OTHER"]}, "stop"), ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice")])
async def test_or_is_refused(rig: Rig, more: dict[str, Any], named: str) -> None:
    assert named in await refused(rig, CHAT, {"model": "firm", "messages": [USER], **more})


async def test_what_says_the_same_or_less_is_not_refused(rig: Rig) -> None:
    more = {"temperature": 0.2, "max_tokens": 40, "stop": ["END"], "top_k": 5}
    found = await sent(rig, CHAT, {"model": "firm", "messages": [USER], **more})
    assert found["top_k"] == 5
    assert (await sent(rig, CHAT, {"model": "firm", "messages": [USER], "max_tokens": 4}))["max_tokens"] == 4


async def test_tools_of_ones_own_are_added_or_win(rig: Rig) -> None:
    mine = {"type": "function", "function": {"name": "buy", "parameters": {}}}
    found = await sent(rig, CHAT, {"model": "yielding", "messages": [USER], "tools": [mine], "tool_choice": "auto"})
    assert (found["tools"], found["tool_choice"]) == ([{"type": "function", "function": FIND}, mine], "auto")
    found = await sent(rig, CHAT, {"model": "soft", "messages": [USER], "tools": [mine]})
    assert found["tools"] == [mine]


async def test_two_tools_of_one_name_are_refused(rig: Rig) -> None:
    mine = {"type": "function", "function": {"name": "find"}}
    assert "'find' already" in await refused(rig, CHAT, {"model": "yielding", "messages": [USER], "tools": [mine]})


# -- what else may be asked, and by whom


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/completions", {"prompt": "x"}), ("/v1/embeddings", {"input": "x"}), ("/tokenize", {"prompt": "x"}),
    ("/v1/rerank", {"query": "x", "documents": ["y"]})])
async def test_endpoints_without_a_conversation(rig: Rig, path: str, body: dict[str, Any]) -> None:
    assert "ask 'talk' for anything else" in await refused(rig, path, {"model": "shop", **body})


@pytest.mark.parametrize("messages", ["x", 5, None, {}, [5], ["x"], [{"role": 5}]])
async def test_messages_that_are_none_are_the_engines_to_refuse(rig: Rig, messages: object) -> None:
    found = await sent(rig, CHAT, {"model": "shop", "messages": messages})
    assert (found["messages"][1:] if isinstance(messages, list) else found["messages"]) == messages


@pytest.mark.parametrize(("tenant", "name", "status"), [
    ("only", "shop", 200), ("only", "shop@1", 200), ("only", "qwen", 403), ("only", "firm", 403),
    ("old", "shop@1", 200), ("old", "shop", 403), ("old", "shop@2", 403),
    ("other", "shop", 403), ("other", "qwen", 200)])
async def test_allow_lists_name_presets(rig: Rig, tenant: str, name: str, status: int) -> None:
    body, headers = {"model": name, "messages": [USER]}, {"authorization": f"Bearer {OF}{tenant}"}
    async with rig.post(body, headers=headers) as answer:
        assert answer.status == status
    await rig.record()


async def test_the_listing_shows_what_a_preset_does_and_not_its_words(rig: Rig) -> None:
    async def get(path: str, tenant: str = "only") -> Any:
        async with rig.session.get(path, headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
            assert answer.status == 200
            return await answer.json()

    (card,) = (await get("/v1/models"))["data"]
    assert (card["id"], card["parent"], card["state"], card["description"]) == (
        "shop", "qwen", "ready", "helps customers")
    preset = card["preset"]
    digest = preset.pop("digest")
    assert preset == {
        "version": "2", "versions": ["1", "2"], "system": True, "tools": ["find"],
        "sampling": {"temperature": 0.2, "top_p": 0.9, "min_p": 0.1, "max_tokens": 40, "stop": ["END"]},
        "caller": {"system": "refuse", "sampling": "win", "tools": "add"}}
    assert "shoes" not in json.dumps(card)
    one = await get("/v1/models/shop@1")
    assert (one["id"], one["parent"], one["preset"]["version"]) == ("shop@1", "llama", "1")
    assert one["preset"]["digest"] != digest == (await get("/v1/models/shop@2"))["preset"]["digest"]
