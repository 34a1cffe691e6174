"""Pictures in requests: what reaches the engine is the file itself, and no URL that the fleet does not allow."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from file_host import PNG, FileHost, sends, trickles
from gateway_rig import Rig, fleet_file

from serving.fleet.media import MediaSpec
from serving.gateway.media.fetching import Fetcher

MEDIA = {"hosts": ["pictures.example"], "max_mib": 0.02, "max_parts": 3, "timeout_s": 0.3}
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TEXT = {"type": "text", "text": 'a picture: "image_url": {"url": "http://127.0.0.1/"}'}


@pytest_asyncio.fixture
async def host() -> AsyncIterator[FileHost]:
    made = await FileHost({"/a.png": sends(), "/slow": trickles, "/page": sends(b"<html>", kind="text/html")}).start()
    yield made
    await made.close()


@pytest_asyncio.fixture(params=["http", "carrier"])
async def rig(request: pytest.FixtureRequest, host: FileHost) -> AsyncIterator[Rig]:
    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    media = Fetcher(MediaSpec(**{**MEDIA, "hosts": tuple(MEDIA["hosts"])}), resolve, lambda address: True,
                    {"http": host.port})
    presets = {"shop": {"versions": {"1": {"model": "qwen", "system": "You sell shoes."}}}}
    fleet = fleet_file(media=MEDIA, presets=presets)
    made = await Rig(fleet=fleet, carried=request.param == "carrier", media=media).start()
    await made.replica()
    yield made
    await made.close()


def url(host: FileHost, path: str = "/a.png") -> str:
    return f"http://pictures.example:{host.port}{path}"


def forms(at: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every way to name a file that the engine reads."""
    part = {"type": "image_url", "image_url": {"url": at, "detail": "low"}}
    chat = {"model": "qwen", "n": 1}
    return {
        "chat": (CHAT, {**chat, "messages": [{"role": "user", "content": [TEXT, part]}]}),
        "chat, bare": (CHAT, {**chat, "messages": [{"role": "user", "content": [{"image_url": at, "uuid": "x"}]}]}),
        "chat, untyped": (CHAT, {**chat, "messages": [{"role": "user", "content": [{"image_url": {"url": at}}]}]}),
        "chat, audio": (CHAT, {**chat, "messages": [{"role": "user", "content": [
            {"type": "audio_url", "audio_url": {"url": at}}]}]}),
        "chat, film": (CHAT, {**chat, "messages": [{"role": "tool", "content": [
            {"type": "video_url", "video_url": {"url": at}}]}]}),
        "response": (RESPONSES, {"model": "qwen", "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": at, "detail": "auto"}]}]}),
        "response, a tool's": (RESPONSES, {"model": "qwen", "input": [
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": at}]}]}),
        "response, a screen's": (RESPONSES, {"model": "qwen", "input": [
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot",
                                                                        "image_url": at}}]}),
        "message": (MESSAGES, {"model": "qwen", "max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": at}}]}]}),
        "message, a tool's": (MESSAGES, {"model": "qwen", "max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [
                {"type": "image", "source": {"type": "url", "url": at}}]}]}]}),
        "embedding": ("/v1/embeddings", {"model": "qwen", "messages": [{"role": "user", "content": [part]}]}),
        "score": ("/score", {"model": "qwen", "data_1": {"content": [part]}, "data_2": [{"content": [part]}]}),
        "rerank": ("/rerank", {"model": "qwen", "query": "x", "documents": {"content": [part]}}),
        "tokenize": ("/tokenize", {"model": "qwen", "messages": [{"role": "user", "content": [part]}]}),
    }


FORMS = list(forms(""))


@pytest.mark.parametrize("form", FORMS)
async def test_the_file_takes_the_urls_place(rig: Rig, host: FileHost, form: str) -> None:
    at = url(host)
    path, body = forms(at)[form]
    async with rig.post(body, path=path) as answer:
        assert answer.status == 200, await answer.text()
    found = json.loads(rig.replicas[0].last.body)
    found.pop("request_id", None)
    assert found == json.loads(json.dumps(body).replace(at, DATA))
    assert host.connections == 1, "named twice, fetched once"
    await rig.record()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", ["file:///etc/passwd", "http://127.0.0.1/x", "https://other.example/x", "ftp://x/y", "x",
                                "http://169.254.169.254/latest/meta-data", " data:image/png;base64,xx", "DATE:x"])
async def test_another_url_goes_nowhere(rig: Rig, host: FileHost, form: str, at: str) -> None:
    path, body = forms(at)[form]
    async with rig.post(body, path=path) as answer:
        assert answer.status == 400
        said = await answer.json()
    assert "media_refused" in json.dumps(said) or path == MESSAGES
    assert (rig.replicas[0].asked, host.connections) == ([], 0)
    record = await rig.record()
    assert (record.code, record.outcome, record.model) == (400, "rejected", "qwen")


@pytest.mark.parametrize("at", [DATA, DATA.replace("data:", "DATA:", 1), "data:image/png,x"])
async def test_data_urls_pass_byte_for_byte(rig: Rig, at: str) -> None:
    body = json.dumps(forms(at)["chat"][1], indent=1).encode()
    async with rig.post(body) as answer:
        assert answer.status == 200
    assert rig.replicas[0].last.body == body
    await rig.record()


@pytest.mark.parametrize("body", [
    {"messages": [{"role": "user", "content": TEXT["text"]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": '{"image_url": "http://x/"}'}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "tool_use", "input": {"image_url": "http://x/", "url": ""}}]}]},
    {"messages": [], "tools": [{"function": {"parameters": {"properties": {"image_url": {"type": "string"}}}}}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": None}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}]},
    {"messages": "image_url\" \"url\"", "x": 1.50},
])
async def test_what_is_no_file_passes_byte_for_byte(rig: Rig, body: dict[str, Any]) -> None:
    data = json.dumps({"model": "qwen", **body}).encode()
    async with rig.post(data) as answer:
        assert answer.status == 200
    assert rig.replicas[0].last.body == data
    await rig.record()


async def test_limits(rig: Rig, host: FileHost) -> None:
    big = "data:image/png;base64," + "A" * 40_000
    part = {"type": "image_url", "image_url": {"url": url(host)}}
    for body, said in ((forms(big)["chat"][1], "0.02 MiB"),
                       ({"model": "qwen", "messages": [{"role": "user", "content": [part] * 4}]}, "names 4 files"),
                       (forms(url(host, "/page"))["chat"][1], "'text/html'")):
        async with rig.post(body) as answer:
            assert answer.status == 400
            assert said in (await answer.json())["error"]["message"]
        await rig.record()
    assert rig.replicas[0].asked == []


async def test_a_host_that_trickles_costs_the_limit_of_time_and_no_more(rig: Rig, host: FileHost) -> None:
    began = time.monotonic()
    async with rig.post(forms(url(host, "/slow"))["chat"][1]) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["code"], "not within 0.3 s" in error["message"]) == ("media_unavailable", True)
    assert 0.25 < time.monotonic() - began < 5
    await rig.record()


async def test_a_caller_that_leaves_ends_the_fetch(rig: Rig, host: FileHost) -> None:
    call = asyncio.ensure_future(rig.post(forms(url(host, "/slow"))["chat"][1]).__aenter__())
    while not host.connections:
        await asyncio.sleep(0.005)
    call.cancel()
    record = await rig.record()
    assert (record.outcome, rig.replicas[0].asked) == ("aborted", [])


async def test_with_a_preset(rig: Rig, host: FileHost) -> None:
    body = {**forms(url(host))["chat"][1], "model": "shop"}
    async with rig.post(body) as answer:
        assert answer.status == 200
    system, user = json.loads(rig.replicas[0].last.body)["messages"]
    assert (system["content"], user["content"][1]["image_url"]["url"]) == ("You sell shoes.", DATA)
    await rig.record()


async def test_a_conversation_is_known_by_what_its_caller_sends(rig: Rig, host: FileHost) -> None:
    """Fetching changes nothing about which replica keeps the conversation."""
    for _ in range(2):
        await rig.replica()
    for _ in range(5):
        async with rig.post(forms(url(host))["chat"][1]) as answer:
            assert answer.status == 200
        await rig.record()
    assert sorted(len(r.asked) for r in rig.replicas) == [0, 0, 5]
