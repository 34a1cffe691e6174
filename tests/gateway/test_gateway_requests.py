"""What the gateway refuses, and what it says then."""

from __future__ import annotations

import json

import pytest
from fake_replica import ANSWER
from gateway_rig import CHAT, KEY, LIMIT, Rig


async def error_of(answer) -> dict:
    found = (await answer.json())["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    return found


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {KEY}",
        KEY,
        f"Bearer{KEY}",
        f"Bearer {KEY}x",
        "Bearer wr\u00f6ng",
    ],
)
async def test_without_a_good_key_nothing_goes(rig: Rig, header: str | None) -> None:
    replica = await rig.replica()
    headers = {} if header is None else {"authorization": header}
    rig.session.headers.clear()
    async with rig.post(CHAT, headers=headers) as answer:
        assert answer.status == 401
        assert (await error_of(answer))["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    async with rig.session.get("/v1/models", headers=headers) as answer:
        assert answer.status == 401
    assert replica.asked == []
    assert [(r.tenant, r.code, r.outcome) for r, _ in rig.meter.answers] == [("", 401, "rejected")] * 2


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_of_a_key_has_no_case(rig: Rig, scheme: str) -> None:
    await rig.replica()
    async with rig.post(CHAT, headers={"authorization": f"{scheme}  {KEY} "}) as answer:
        assert answer.status == 200
    await rig.record()


async def test_an_unknown_model_names_those_there_are(rig: Rig) -> None:
    async with rig.post(CHAT | {"model": "qwen4"}) as answer:
        assert answer.status == 404
        found = await error_of(answer)
    assert found["code"] == "model_not_found"
    assert "llama, org.qwen, qwen, qwen3" in found["message"]
    record = await rig.record()
    assert (record.code, record.outcome, record.model, record.tenant) == (404, "rejected", "", "demo")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/nothing"),
        ("GET", "/"),
        ("POST", "/v1/chat/completions/"),
        ("GET", "/metrics"),
        ("POST", "/invocations"),
    ],
)
async def test_there_is_no_such_endpoint(rig: Rig, method: str, path: str) -> None:
    replica = await rig.replica()
    async with rig.session.request(method, path) as answer:
        assert answer.status == 404
        found = await error_of(answer)
    assert found["code"] == "unknown_endpoint"
    assert f"{method} {path}" in found["message"]
    assert replica.asked == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET"), ("PUT", "/v1/models/qwen", "GET"),
     ("POST", "/healthz", "GET")],
)
async def test_a_wrong_method_is_told_the_right_one(rig: Rig, method: str, path: str, allowed: str) -> None:
    async with rig.session.request(method, path) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert (await error_of(answer))["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model": "qwen"', "not JSON"),
        (b'{"model": "qwen"} x', "not JSON"),
        (b'{"model": "\xff"}', "not JSON"),
        (b"[]", "Expected `object`"),
        (b'"qwen"', "Expected `object`"),
        (b"{}", "`model`"),
        (b'{"messages": []}', "`model`"),
        (b'{"model": 7}', "$.model"),
        (b'{"model": null}', "$.model"),
        (b'{"model": "qwen", "stream": "yes"}', "$.stream"),
        (b'{"model": "qwen", "stream_options": []}', "$.stream_options"),
        (b'{"model": "qwen", "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "deep"),
    ],
)
async def test_a_malformed_body_is_the_callers_fault(rig: Rig, body: bytes, said: str) -> None:
    replica = await rig.replica()
    async with rig.post(body) as answer:
        assert answer.status == 400
        found = await error_of(answer)
    assert (found["type"], found["code"]) == ("invalid_request_error", "malformed_request")
    assert said in found["message"]
    record = await rig.record()
    assert (record.code, record.outcome) == (400, "rejected")
    assert replica.asked == []


async def test_a_body_that_says_it_is_too_long(rig: Rig) -> None:
    async with rig.post(b" " * (LIMIT + 1)) as answer:
        assert answer.status == 413
        assert str(LIMIT) in (await error_of(answer))["message"]
    assert (await rig.record()).code == 413


async def test_a_body_that_grows_too_long(rig: Rig) -> None:
    async def parts():
        for _ in range(LIMIT // 1_000 + 2):
            yield b" " * 1_000

    async with rig.session.post("/v1/chat/completions", data=parts()) as answer:
        assert answer.status == 413
    assert (await rig.record()).outcome == "rejected"


async def test_a_body_of_just_the_limit_passes(rig: Rig) -> None:
    replica = await rig.replica()
    body = json.dumps(CHAT).encode().ljust(LIMIT)
    async with rig.post(body) as answer:
        assert (answer.status, await answer.read()) == (200, ANSWER)
    assert replica.last.body == body
    await rig.record()


async def test_no_replica_says_when_to_come_back(rig: Rig) -> None:
    async with rig.post(CHAT) as answer:
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        assert (await error_of(answer))["code"] == "no_replica"
    record = await rig.record()
    assert (record.code, record.outcome, record.model) == (503, "failed", "qwen")


async def test_a_fault_of_the_gateway_itself_is_a_500_that_can_be_traced(rig: Rig) -> None:
    def broken(model: str) -> str:
        raise RuntimeError("secret detail")

    rig.directory.replicas = broken  # type: ignore[method-assign]
    async with rig.post(CHAT) as answer:
        assert answer.status == 500
        found = await error_of(answer)
    record = await rig.record()
    assert record.request_id in found["message"]
    assert "secret detail" not in found["message"]
    assert (record.code, record.outcome) == (500, "failed")


async def test_health_and_readiness_need_no_key(rig: Rig) -> None:
    rig.session.headers.clear()
    for path in ("/healthz", "/health"):
        async with rig.session.get(path) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with rig.session.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (
            503,
            {"ready": False, "models": {"qwen": False, "llama": False}},
        )

    rig.directory.only["qwen"] = ["127.0.0.1:1"]
    rig.directory.states["llama"] = "scaled_to_zero"  # whoever asks wakes it
    async with rig.session.get("/readyz") as answer:
        assert (answer.status, (await answer.json())["ready"]) == (200, True)


async def test_models_are_listed_ready_or_not(rig: Rig) -> None:
    await rig.replica()
    rig.directory.only["llama"] = []
    async with rig.session.get("/v1/models") as answer:
        found = await answer.json()
    assert found["object"] == "list"
    assert [(m["id"], m["object"], m["state"]) for m in found["data"]] == [
        ("qwen", "model", "ready"),
        ("llama", "model", "unavailable"),
    ]
    assert found["data"][0]["aliases"] == ["qwen3", "org.qwen"]


@pytest.mark.parametrize(("name", "status"), [("qwen", 200), ("qwen3", 200), ("nothing", 404), ("a/b", 404)])
async def test_one_model(rig: Rig, name: str, status: int) -> None:
    async with rig.session.get(f"/v1/models/{name}") as answer:
        assert answer.status == status
        found = await answer.json()
    assert found["id"] == "qwen" if status == 200 else found["error"]["code"] == "model_not_found"
