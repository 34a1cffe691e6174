"""Every endpoint once through a gateway: the answer names its cost, and the ledger charges exactly that.

A fleet of its own, because adapters and an embedding model would change what other files count: one model with two
adapters, one that embeds, and two that cannot come up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from live_calls import CHAT, COMPLETIONS, Answer, Caller, chat
from live_fleet import ROOT, LiveFleet, eventually, fleet_file, nano, no_interrupts

pytestmark = pytest.mark.integration
TENANT = "ends"
RESPONSES, MESSAGES, EMBEDDINGS = "/v1/responses", "/v1/messages", "/v1/embeddings"
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"usage": {"type": "string"}}}}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """The fleet, up."""
    folder = tmp_path_factory.mktemp("ends")
    file = fleet_file(folder, ("qwen",), (TENANT,))
    fleet = yaml.safe_load(file.read_text()) | {"catalogue": str(ROOT / "deployments" / "catalogue")}
    qwen = fleet["models"]["qwen"]
    arguments = {k: v for k, v in qwen["engine"]["args"].items() if k != "structured_outputs_config"}
    fleet["models"]["embed"] = {
        **qwen, "source": "small:qwen3-embedding", "aliases": ["embedding"], "comparators": [],
        "catalogue": "qwen/qwen3-embedding-0.6b",  # a small stand-in for it: its licence and all that is left out here
        "engine": {**qwen["engine"], "tool_call_parser": None, "args": {**arguments, "runner": "pooling"}},
    }
    odd = folder / "odd"
    odd.mkdir()
    (odd / "config.json").write_text('{"architectures": ["Qwen9ForCausalLM"], "model_type": "qwen9"}')
    (odd / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name, source, architecture in (("lost", folder / "none", "Qwen3ForCausalLM"), ("odd", odd, "Qwen9ForCausalLM")):
        fleet["models"][name] = {**qwen, "source": str(source), "architecture": architecture, "aliases": []}
    fleet["models"]["lost"]["fallback"] = ["qwen"]
    qwen["adapters"] = {"pirate": {"source": "small:lora"}, "formal": {"source": "small:lora"}}
    qwen["lora"] = {"max_rank": 8}
    fleet["presets"] = {"assistant": {"versions": {"1": {
        "model": "qwen", "system": "Count ships.", "sampling": {"max_tokens": 5}}}}}
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    live = LiveFleet(folder / "state", file)
    try:
        live.start()
        yield live
    finally:
        with no_interrupts():
            live.run("down", timeout_s=120)


@pytest.fixture(scope="module")
def caller(ends: LiveFleet) -> Caller:
    return Caller(ends.port, ends.new_key(TENANT))


@pytest.fixture
def charged(ends: LiveFleet) -> Callable[[str], int]:
    """What the ledger charges a request, nano-USD, once it is over there. It must be the tenant's."""

    def charged(request_id: str) -> int:
        def read() -> list[tuple[Any, ...]]:
            return ends.rows("SELECT tenant, SUM(direct + waste + idle + cold_start) FROM charges"
                             " WHERE request_id = ? AND outcome != 'running' GROUP BY 1", request_id)

        ((tenant, nanousd),) = eventually(read, f"{request_id} is charged")
        assert tenant == TENANT
        return int(nanousd)

    return charged


def events(answer: Answer) -> list[Any]:
    """The data of a stream's events, without the end marker."""
    lines = [line.removeprefix("data: ") for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def usages(answer: Answer) -> list[dict[str, Any]]:
    """The usages that name a cost, of the answer or of any of its events."""
    found = events(answer) if answer.headers["content-type"].startswith("text/event-stream") else [answer.json]
    carriers = [part for event in found for part in (event, event.get("response"), event.get("message")) if part]
    return [part["usage"] for part in carriers if part.get("usage") and "cost" in part["usage"]]


WITH_USAGE = {"include_usage": True}
SAY = {"model": "qwen", "messages": [{"role": "user", "content": "Count the ships."}], "max_tokens": 6}
ASK = {"model": "qwen", "input": "Count the ships.", "max_output_tokens": 6, "tools": [TOOL], "tool_choice": "none"}
LINES = {"model": "embed", "text_1": "ships", "text_2": ["boats", "trains"]}
LIST = {"model": "embed", "query": "ships", "documents": ["boats", "trains"]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, chat("qwen")),
    "chat, streamed": (CHAT, chat("qwen", stream=True, stream_options=WITH_USAGE)),
    "chat, three answers": (CHAT, chat("qwen", n=3)),
    "chat, by alias": (CHAT, chat("qwen3")),
    "chat, adapter": (CHAT, chat("qwen:pirate")),
    "chat, adapter by alias": (CHAT, chat("qwen3:formal", stream=True, stream_options=WITH_USAGE)),
    "completions, three prompts": (COMPLETIONS, {"model": "qwen", "prompt": ["a", "b", "c"], "max_tokens": 4}),
    "completions, streamed": (COMPLETIONS, {"model": "qwen", "prompt": "a", "max_tokens": 4, "stream": True,
                                            "stream_options": WITH_USAGE}),
    "response": (RESPONSES, ASK),
    "response, streamed": (RESPONSES, {**ASK, "stream": True}),
    "response, adapter": (RESPONSES, {**ASK, "model": "qwen:pirate"}),
    "message": (MESSAGES, SAY),
    "message, streamed": (MESSAGES, {**SAY, "stream": True}),
    "embeddings": (EMBEDDINGS, {"model": "embed", "input": ["ships", "boats"]}),
    "embeddings, by alias": (EMBEDDINGS, {"model": "embedding", "input": "ships", "encoding_format": "base64"}),
    "pooling": ("/pooling", {"model": "embed", "input": ["ships", "boats"]}),
    "score": ("/score", LINES),
    "v1 score": ("/v1/score", LINES),
    "rerank": ("/rerank", LIST),
    "v1 rerank": ("/v1/rerank", LIST),
    "v2 rerank": ("/v2/rerank", LIST),
}


@pytest.mark.parametrize("case", CASES)
def test_an_answer_names_the_cost_that_the_ledger_charges(
        ends: LiveFleet, caller: Caller, charged: Callable[[str], int], case: str) -> None:
    path, body = CASES[case]
    answer = caller.call(path, body)
    assert answer.status == 200, answer.body
    (usage,) = usages(answer)
    assert nano(usage["cost"]) == charged(answer.request_id) > 0
    code, outcome, model = eventually(
        lambda: ends.rows("SELECT code, outcome, model FROM requests WHERE request_id = ?", answer.request_id),
        "the gateway's row")[0]
    assert (code, outcome) == (200, "finished")
    assert model.startswith(("qwen", "embed")), model


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat("qwen", stream=True)), (CHAT, chat("qwen", stream=True, stream_options={"include_usage": False})),
     (CHAT, chat("qwen", stream=True, stream_options={"continuous_usage_stats": True})),
     (COMPLETIONS, {"model": "qwen", "prompt": "a", "max_tokens": 4, "stream": True})],
)
def test_a_stream_that_did_not_ask_for_usage_shows_none_and_is_charged_all_the_same(
        ends: LiveFleet, caller: Caller, charged: Callable[[str], int], path: str, body: dict[str, Any]) -> None:
    answer = caller.call(path, body)
    assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: ") for line in answer.body.splitlines() if line)
    assert all(e["choices"] and not e.get("usage") for e in events(answer))
    assert charged(answer.request_id) > 0
    ((completion,),) = eventually(lambda: ends.rows(
        "SELECT completion_tokens FROM requests WHERE request_id = ?", answer.request_id), "the gateway's row")
    assert completion and completion > 0, "the gateway learns the tokens"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"model": "qwen", "prompt": "ships"}),
        ("/detokenize", {"model": "qwen", "tokens": [300, 301]}),
        ("/v1/messages/count_tokens", {k: v for k, v in SAY.items() if k != "max_tokens"}),
    ],
)
def test_what_runs_no_engine_costs_nothing(ends: LiveFleet, caller: Caller, path: str, body: dict[str, Any]) -> None:
    answer = caller.call(path, body)
    assert answer.status == 200, answer.body
    assert usages(answer) == []
    ends.settled()
    assert ends.rows("SELECT * FROM charges WHERE request_id = ?", answer.request_id) == []


def test_a_response_in_the_background_is_charged_and_told_later(
        caller: Caller, charged: Callable[[str], int]) -> None:
    made = caller.call(RESPONSES, {**ASK, "max_output_tokens": 200, "background": True})
    assert (made.status, usages(made)) == (200, [])
    path = f"{RESPONSES}/{made.json['id']}"
    eventually(lambda: caller.call(path).json["status"] not in ("queued", "in_progress"), "it is done", 30, 0.2)
    (usage,) = usages(caller.call(path))
    assert usage["output_tokens"] == 200
    assert nano(usage["cost"]) == charged(made.request_id) > 0


def test_a_response_that_is_cancelled_is_charged_for_what_ran(
        ends: LiveFleet, caller: Caller, charged: Callable[[str], int]) -> None:
    made = caller.call(RESPONSES, {**ASK, "max_output_tokens": 1500, "background": True})
    eventually(lambda: ends.running_in_engine("qwen") == 1, "it runs", 10, 0.02)
    cancelled = caller.call(f"{RESPONSES}/{made.json['id']}/cancel", {})
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert charged(made.request_id) > 0
    assert ends.running_in_engine("qwen") == 0


def test_a_response_goes_on_from_an_earlier_one(caller: Caller) -> None:
    first = caller.call(RESPONSES, ASK).json
    then = caller.call(RESPONSES, {**ASK, "previous_response_id": first["id"]})
    assert then.status == 200, then.body
    assert then.json["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_adapters_answer_otherwise_than_their_model_and_each_other(caller: Caller) -> None:
    said = {}
    for name in ("qwen", "qwen:pirate", "qwen:formal"):
        answer = caller.call(CHAT, chat(name, temperature=0)).json
        assert answer["model"] == name
        said[name] = answer["choices"][0]["message"]["content"]
    assert len(set(said.values())) == 3, said


def test_an_adapter_is_added_while_the_fleet_runs_and_removed(ends: LiveFleet, caller: Caller) -> None:
    known = caller.call(CHAT, chat("qwen:pirate", temperature=0)).json
    assert caller.call(CHAT, chat("qwen:tone")).status == 404
    ends.say("adapters", "add", "qwen", "tone", "small:lora")
    began = time.monotonic()
    answers = [eventually(lambda: a if (a := caller.call(CHAT, chat("qwen3:tone", temperature=0))).status == 200
                          else None, "gateways know it", 5) for _ in range(4)]
    assert time.monotonic() - began < 5
    (said,) = {a.json["choices"][0]["message"]["content"] for a in answers}
    assert said != known["choices"][0]["message"]["content"]
    assert {a.json["model"] for a in answers} == {"qwen:tone"} == {a.headers["x-flotilla-model"] for a in answers}
    cut = eventually(lambda: {r["keys"]["adapter"]: r for r in json.loads(
        ends.say("cost", "--by", "adapter", "--json"))["rows"]}.get("qwen:tone"), "its cost", 10, 0.5)
    assert cut["requests"] >= 1 and cut["nanousd"]["direct"] > 0
    ends.say("adapters", "remove", "qwen", "tone")
    eventually(lambda: caller.call(CHAT, chat("qwen:tone")).status == 404, "gateways have forgotten it", 5)


def test_a_preset_counts_in_the_prompt_and_in_the_bill(ends: LiveFleet, caller: Caller) -> None:
    body = {"messages": SAY["messages"]}
    plain = caller.call(CHAT, {**body, "model": "qwen", "max_tokens": 5}).json["usage"]
    answer = caller.call(CHAT, {**body, "model": "assistant"})
    assert answer.headers["x-flotilla-preset"] == "assistant@1"
    assert answer.json["usage"]["prompt_tokens"] > plain["prompt_tokens"]
    assert answer.json["usage"]["completion_tokens"] <= 5
    for path, more in ((RESPONSES, {"input": "ships"}), (MESSAGES, {**body, "max_tokens": 4})):
        assert caller.call(path, {"model": "assistant", **more}).status == 200
    eventually(lambda: ends.rows("SELECT COUNT(*) FROM requests WHERE preset = 'assistant@1'") == [(3,)], "its rows")


def test_models_that_cannot_come_up_leave_the_others_up(ends: LiveFleet, caller: Caller) -> None:
    """A path that is not there and an architecture that vLLM cannot run: each is told in words, and is no one else's
    matter; a fallback answers for one of them."""
    told = {failure.model: failure.message for failure in ends.state.failures}
    assert set(told) == {"lost", "odd"}
    assert "there is no such folder" in told["lost"] and "Qwen9ForCausalLM" in told["odd"]
    cards = {model["id"]: model for model in caller.call("/v1/models").json["data"]}
    assert cards["embed"]["licence"]["name"] == "Apache-2.0" and "licence" not in cards["qwen"]
    states = {name: card["state"] for name, card in cards.items()}
    assert (states["lost"], states["odd"], states["qwen"], states["embed"]) == ("failed", "failed", "ready", "ready")
    refused = caller.call(CHAT, chat("odd"))
    assert (refused.status, refused.json["error"]["code"]) == (503, "model_failed")
    answered = caller.call(CHAT, chat("lost"))
    assert (answered.status, answered.headers["x-flotilla-model"]) == (200, "qwen")


def test_all_of_it_was_someones_and_adds_up(ends: LiveFleet) -> None:
    ends.settled()  # after a reading of each replica: what is stray would be in it
    assert {tenant for tenant, in ends.rows("SELECT DISTINCT tenant FROM charges")} == {TENANT}
    assert json.loads(ends.say("cost", "reconcile", "--json"))["residual_nanousd"] == 0
