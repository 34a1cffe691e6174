"""What the API says over plain HTTP: streams as they come, errors in OpenAI's form, and who may talk to a replica."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from live_calls import CHAT, Answer, Caller, chat
from live_fleet import LiveFleet, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def caller(callers: Callable[[str], Caller]) -> Caller:
    return callers("raw")


def test_a_stream_arrives_while_it_is_made(caller: Caller) -> None:
    stream = caller.open(CHAT, chat("qwen", max_tokens=300, stream=True))
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = list(stream.events())
    at = [when for when, _ in events]
    assert events[-1][1] == "[DONE]" and all(data != "[DONE]" for _, data in events[:-1])
    assert len(events) > 100, "tokens were not sent as they came"
    took = at[-1] - at[0]
    assert took > 0.3, "300 tokens cannot come at once"
    assert at[len(at) // 2] - at[0] > 0.2 * took, "the first half came with the first event"
    assert at[-1] - at[len(at) // 2] > 0.2 * took, "the second half came with the last event"


def test_the_callers_own_request_id_is_kept_beside_the_ledgers(fleet: LiveFleet, caller: Caller) -> None:
    answer = caller.call(CHAT, chat("qwen", max_tokens=2), x_request_id="order 66")
    assert answer.status == 200 and answer.request_id.startswith("flo-")
    rows = eventually(lambda: fleet.rows("SELECT caller_id, model, outcome FROM requests WHERE request_id = ?",
                                         answer.request_id), "the request's row")
    assert rows == [("order 66", "qwen", "finished")]


def error(answer: Answer) -> dict[str, object]:
    """The error of an answer, whose form must be OpenAI's."""
    body = answer.json
    assert list(body) == ["error"] and {"message", "type", "param", "code"} <= set(body["error"])
    assert answer.headers["content-type"].startswith("application/json")
    return dict(body["error"])


@pytest.mark.parametrize("key", [None, "", "flt_" + "0" * 48, "sk-something"])
def test_without_a_good_key_nothing_is_answered(fleet: LiveFleet, key: str | None) -> None:
    for path, body in ((CHAT, chat("qwen")), ("/v1/models", None)):
        answer = Caller(fleet.port, key).call(path, body)
        assert answer.status == 401 and error(answer)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_model_is_told_which_there_are(caller: Caller) -> None:
    answer = caller.call(CHAT, chat("qwem"))
    assert answer.status == 404 and error(answer)["code"] == "model_not_found"
    said = str(error(answer)["message"])
    assert "Did you mean 'qwen'?" in said and "llama" in said


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": []}', b'{"model": 3}', b"\xff\xfe", b""])
def test_a_body_that_makes_no_sense_is_refused(caller: Caller, body: bytes) -> None:
    answer = caller.call(CHAT, body)
    assert answer.status == 400 and error(answer)["code"] == "malformed_request"


def test_a_body_over_the_limit_is_refused_and_one_below_reaches_the_engine(caller: Caller) -> None:
    over = caller.call(CHAT, chat("qwen", "x" * (1024 * 1024)))
    assert over.status == 413 and error(over)["code"] == "body_too_large"
    below = caller.call(CHAT, chat("qwen", "x" * (1024 * 1024 - 1000)))
    assert below.status == 400 and "2048" in str(error(below)["message"]), "the engine's own words"


@pytest.mark.parametrize("change", [{"max_tokens": 5000}, {"temperature": -1}, {"n": 0}, {"messages": "hello"}])
def test_what_the_engine_refuses_is_passed_on(caller: Caller, change: dict[str, object]) -> None:
    answer = caller.call(CHAT, chat("llama") | change)
    assert answer.status == 400 and error(answer)["message"]
    assert answer.request_id.startswith("flo-")


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/metrics", "/v1/chat/completions/", "/v1/load_lora_adapter"])
def test_other_endpoints_are_not_there(caller: Caller, path: str) -> None:
    answer = caller.call(path, {"model": "qwen"})
    assert answer.status == 404 and error(answer)["code"] == "unknown_endpoint"


def test_an_engine_refusal_costs_nothing_and_leaves_a_row(fleet: LiveFleet, caller: Caller) -> None:
    answer = caller.call(CHAT, chat("llama", temperature=-1))
    rows = eventually(lambda: fleet.rows("SELECT code, outcome FROM requests WHERE request_id = ?", answer.request_id),
                      "the request's row")
    assert rows == [(400, "rejected")]
    fleet.settled()
    assert fleet.rows("SELECT direct FROM charges WHERE request_id = ?", answer.request_id) == []


def test_a_replica_answers_no_one_but_the_gateway(fleet: LiveFleet, caller: Caller) -> None:
    (address,) = fleet.replicas("qwen")
    direct = Caller(int(address.rpartition(":")[2]), caller.key)
    for headers in ({}, {"x_flotilla_secret": "guess"}):
        for path, body in ((CHAT, chat("qwen")), ("/v1/models", None), ("/tokenize", {"prompt": "a"})):
            assert direct.call(path, body, **headers).status == 403
    metrics = direct.call("/metrics")
    assert metrics.status == 200 and b"vllm:num_requests_running" in metrics.body
    secret = (fleet.state_dir / "replica_secret").read_text().strip()
    assert direct.call("/v1/models", x_flotilla_secret=secret).status == 200


def test_health_and_readiness_need_no_key(fleet: LiveFleet) -> None:
    nobody = Caller(fleet.port, None)
    assert nobody.call("/healthz").json == {"status": "ok"}
    assert nobody.call("/readyz").json == {"ready": True, "models": {"qwen": True, "llama": True}}


def test_status_tells_programs_what_runs(fleet: LiveFleet) -> None:
    state = json.loads(fleet.say("status", "--json"))
    assert state["running"] and {r["model"] for r in state["replicas"]} == {"qwen", "llama"}
