"""Clients that no one here wrote against the live fleet: Anthropic's, LangChain's, OpenAI's for JavaScript, vLLM's own
benchmark. OpenAI's Python client has a file of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from live_calls import Caller
from live_fleet import ROOT, LiveFleet

pytestmark = pytest.mark.integration
JS = ROOT / "tests" / "clients" / "js"
ASK: list[Any] = [{"role": "user", "content": "Which ships are in port?"}]
EXACT = {"ignore_eos": True}
SHIP = {
    "title": "ship", "description": "A ship in port.", "type": "object",
    "properties": {"name": {"type": "string"}, "berth": {"enum": ["north", "south"]}},
    "required": ["name", "berth"], "additionalProperties": False,
}


@pytest.fixture(scope="module")
def key(callers: Callable[[str], Caller]) -> str:
    found = callers("clients").key
    assert found is not None
    return found


@pytest.fixture
def claude(fleet: LiveFleet, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=fleet.base_url.removesuffix("/v1"), api_key=key, max_retries=0,
                             timeout=60) as made:
        yield made


def test_anthropics_client_gets_a_message_with_its_cost(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(model="qwen", max_tokens=9, messages=ASK, system="Be brief.")
    assert message.type == "message" and message.role == "assistant"
    assert message.content[0].type == "text" and message.content[0].text
    assert 0 < message.usage.output_tokens <= 9 and message.usage.input_tokens > 0
    assert message.usage.model_extra is not None and message.usage.model_extra["cost"] > 0


def test_anthropics_client_streams(claude: anthropic.Anthropic) -> None:
    # noise may end at its first token; greedy, it is the same each time, and it does not
    with claude.messages.stream(model="llama", max_tokens=12, messages=ASK, extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].type == "text" and final.content[0].text == text
    assert final.stop_reason in ("max_tokens", "end_turn") and 0 < final.usage.output_tokens <= 12
    events = list(claude.messages.create(model="llama", max_tokens=4, messages=ASK, stream=True))
    assert events[0].type == "message_start" and events[-1].type == "message_stop"
    (delta,) = [e for e in events if e.type == "message_delta"]
    assert delta.usage.model_extra is not None and delta.usage.model_extra["cost"] > 0


def test_anthropics_client_counts_tokens(claude: anthropic.Anthropic) -> None:
    few = claude.messages.count_tokens(model="qwen", messages=ASK).input_tokens
    more = claude.messages.count_tokens(model="qwen", messages=ASK, system="Be brief, and speak of ships.").input_tokens
    assert 0 < few < more


def test_anthropics_client_calls_a_tool(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "berth_of", "description": "Where a ship lies.", "input_schema": SHIP}
    message = claude.messages.create(model="qwen", max_tokens=400, messages=ASK, tools=[tool],
                                     tool_choice={"type": "tool", "name": "berth_of"}, extra_body={"temperature": 0})
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert call.name == "berth_of"
    jsonschema.validate(call.input, SHIP)


def test_anthropics_client_catches_the_errors_it_knows(fleet: LiveFleet, claude: anthropic.Anthropic) -> None:
    url = fleet.base_url.removesuffix("/v1")
    with pytest.raises(anthropic.AuthenticationError, match="API key"):
        anthropic.Anthropic(base_url=url, api_key="flt_no", max_retries=0).messages.create(
            model="qwen", max_tokens=2, messages=ASK)
    with pytest.raises(anthropic.NotFoundError, match="llama") as unknown:
        claude.messages.create(model="lama", max_tokens=2, messages=ASK)
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="qwen", max_tokens=-1, messages=ASK)


@pytest.fixture
def langchain(fleet: LiveFleet, key: str) -> Callable[..., ChatOpenAI]:
    def made(**options: Any) -> ChatOpenAI:
        return ChatOpenAI(**{"model": "qwen", "base_url": fleet.base_url, "api_key": key, "max_retries": 0,
                             "timeout": 60, "temperature": 0} | options)

    return made


def test_langchain_invokes_and_batches(langchain: Callable[..., ChatOpenAI]) -> None:
    model = langchain(max_tokens=8, extra_body=EXACT)
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage("Which ships are in port?")])
    assert answer.content and answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 8
    assert answer.response_metadata["token_usage"]["cost"] > 0
    found = model.batch(["One.", "Two.", "Three."])
    assert [a.usage_metadata["output_tokens"] for a in found if a.usage_metadata] == [8, 8, 8]


def test_langchain_streams(langchain: Callable[..., ChatOpenAI]) -> None:
    model = langchain(model="llama", max_tokens=12, extra_body=EXACT, stream_usage=True)
    parts = list(model.stream("Count the ships."))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    assert len(parts) > 4 and whole.content
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] == 12


async def test_langchain_streams_for_those_who_await(langchain: Callable[..., ChatOpenAI]) -> None:
    parts = [part async for part in langchain(max_tokens=6, extra_body=EXACT).astream("Count the ships.")]
    assert len(parts) > 2 and "".join(str(p.content) for p in parts)


def test_langchain_gets_structured_output(langchain: Callable[..., ChatOpenAI]) -> None:
    for method in ("json_schema", "function_calling"):
        model = langchain(max_tokens=400).with_structured_output(SHIP, method=method)
        jsonschema.validate(model.invoke("Which ship is in port?"), SHIP)


def test_langchain_binds_tools(langchain: Callable[..., ChatOpenAI]) -> None:
    tool = {"type": "function", "function": {"name": "berth_of", "parameters": SHIP}}
    answer = langchain(max_tokens=400).bind_tools([tool], tool_choice="berth_of").invoke("Where is the ship?")
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert call["name"] == "berth_of"
    jsonschema.validate(call["args"], SHIP)


@pytest.fixture(scope="session")
def js_clients() -> Path:
    """The folder with OpenAI's JavaScript client, installed as its lock file says."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; on Debian: apt-get install nodejs npm")
    lock, stamp = JS / "package-lock.json", JS / "node_modules" / ".installed"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        done = subprocess.run(["npm", "ci", "--loglevel=error"], cwd=JS, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"npm ci: {done.stdout}{done.stderr}"
        stamp.write_bytes(lock.read_bytes())
    return JS


def test_openais_javascript_client(fleet: LiveFleet, key: str, js_clients: Path) -> None:
    done = subprocess.run(["node", "--test"], cwd=js_clients, capture_output=True, text=True, timeout=180,
                          env=os.environ | {"BASE_URL": fleet.base_url, "API_KEY": key})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout and "pass 0" not in done.stdout, done.stdout


@pytest.mark.parametrize("backend", ["openai-chat", "openai"])
def test_vllms_own_benchmark(fleet: LiveFleet, key: str, tmp_path: Path, backend: str) -> None:
    (tokenizer,) = (fleet.state_dir / "checkpoints").glob("qwen3-*")
    path = "/v1/chat/completions" if backend == "openai-chat" else "/v1/completions"
    command = [
        str(Path(sys.executable).with_name("vllm")), "bench", "serve", "--backend", backend, "--endpoint", path,
        "--base-url", fleet.base_url.removesuffix("/v1"), "--model", "qwen", "--tokenizer", str(tokenizer),
        "--dataset-name", "random", "--random-input-len", "24", "--random-output-len", "12", "--num-prompts", "24",
        "--max-concurrency", "6", "--ignore-eos", "--disable-tqdm", "--save-result", "--result-dir", str(tmp_path),
        "--result-filename", "result.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180,
                          env=os.environ | {"OPENAI_API_KEY": key, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["completed"], found["failed"]) == (24, 0)
    assert found["total_output_tokens"] == 24 * 12 and found["median_ttft_ms"] > 0
