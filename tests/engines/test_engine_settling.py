"""The layer around vLLM's server: the secret, the cost in the usage, and every other byte untouched."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest
from engine_samples import ONE, TWO, Replica, engine_id, over
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import books
from serving.engines.costs import last_usage, with_cost
from serving.engines.settling import Settling
from serving.fleet.records import Tokens
from serving.gateway import usage
from serving.gateway.events import Events

SECRET = "between us"
COST = b'"cost":0.000001000'
USAGE = {"prompt_tokens": 8, "total_tokens": 10, "completion_tokens": 2}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else compact(value)) + b"\n\n"


def chunk(text: str = "", index: int = 0, finish: str | None = None, usage: dict | None = None) -> bytes:
    value = {"id": "x", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}
    return event(value | ({"usage": usage} if usage else {}))


LAST = event({"id": "x", "choices": [], "usage": USAGE})
DONE = event(b"[DONE]")


class App:
    """vLLM's server: answers what it is told to, once the request has run for a thousand nano-dollars."""

    def __init__(
        self, parts: list[bytes], kind: bytes = b"text/event-stream; charset=utf-8", status: int = 200
    ) -> None:
        self.parts, self.kind, self.status = parts, kind, status
        self.replica = Replica().ready()
        self.works = self.healthy = True
        self.called = 0
        self.sent: list[dict] = []

    async def __call__(self, scope, receive, send) -> None:
        self.called += 1
        if scope["type"] == "http" and self.works:
            self.replica.step([engine_id(ONE)], [over(engine_id(ONE))])
        headers = [(b"content-type", self.kind), (b"x-other", b"kept")]
        if not self.kind.startswith(b"text/event-stream"):
            headers.append((b"content-length", b"%d" % sum(map(len, self.parts))))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask(
        self,
        apart: bool = False,
        secret: str | None = SECRET,
        path: str = "/v1/chat/completions",
        kind: str = "http",
    ) -> bytes:
        headers = [(b"x-request-id", ONE.encode()), (b"x-flotilla-tenant", b"demo")]
        if secret is not None:
            headers.append((b"x-flotilla-secret", secret.encode()))
        if apart:
            headers.append((b"x-flotilla-usage", b"apart"))

        async def send(message) -> None:
            self.sent.append(message)

        async def receive():
            await asyncio.Event().wait()

        scope = {"type": kind, "method": "POST", "path": path, "headers": headers}
        await Settling(self, self.replica.books, SECRET, lambda: self.healthy)(scope, receive, send)
        return b"".join(m.get("body", b"") for m in self.sent)

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.sent if m["type"] == "http.response.body" and m["body"]]


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", "ü"])
async def test_only_the_gateway_comes_in(secret: str | None) -> None:
    app = App([b"{}"])
    assert b"only the gateway" in await app.ask(secret=secret)
    assert (app.sent[0]["status"], app.called) == (403, 0)


async def test_nobody_comes_in_by_websocket() -> None:
    app = App([])
    await app.ask(kind="websocket", path="/v1/realtime")
    assert ([m["type"] for m in app.sent], app.called) == (["websocket.close"], 0)


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_health_and_metrics_are_open(path: str) -> None:
    app = App([b"fine"], b"text/plain")
    assert await app.ask(secret=None, path=path) == b"fine"


@pytest.mark.parametrize("path", ["/v1/models", "/health/../v1/models", "/metrics/x", "/HEALTH", "/"])
async def test_nothing_else_is_open(path: str) -> None:
    app = App([b"fine"], b"text/plain")
    await app.ask(secret=None, path=path)
    assert (app.sent[0]["status"], app.called) == (403, 0)


async def test_a_whole_answer_gains_its_cost_and_the_right_length() -> None:
    body = compact({"id": "x", "choices": [{"message": {"content": "hö"}}], "usage": USAGE})
    app = App([body[:20], body[20:]], b"application/json")
    answer = await app.ask()
    assert json.loads(answer)["usage"] == USAGE | {"cost": 1e-6}
    assert answer.replace(COST + b",", b"") == body
    headers = dict(app.sent[0]["headers"])
    assert headers[b"content-length"] == b"%d" % len(answer)
    assert headers[b"x-other"] == b"kept"
    assert sum(name == b"content-length" for name, _ in app.sent[0]["headers"]) == 1


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        (b"application/json", 400, compact({"error": {"message": "no"}, "usage": USAGE})),
        (b"application/json", 500, compact({"error": {"message": "no"}})),
        (b"application/json", 200, compact({"data": []})),
        (b"text/plain", 200, b'"usage":{} in prose'),
    ],
)
async def test_other_answers_pass_untouched(kind: bytes, status: int, body: bytes) -> None:
    app = App([body], kind, status)
    assert await app.ask() == body
    assert app.sent[0]["status"] == status
    assert dict(app.sent[0]["headers"])[b"content-length"] == b"%d" % len(body)


async def test_a_stream_that_asked_for_usage_gains_the_cost_there_and_nowhere_else() -> None:
    parts = [chunk("a"), chunk("b", finish="stop"), LAST, DONE]
    app = App(parts)
    answer = await app.ask()
    assert answer == b"".join(parts).replace(b'"usage":{', b'"usage":{' + COST + b",")
    assert app.bodies[:2] == parts[:2]  # one by one, as they came


def aside(usage: dict) -> bytes:
    """What the gateway is told of a stream whose caller did not ask for usage."""
    return b": flotilla " + compact({"id": "x", "choices": [], "usage": usage}) + b"\n\n"


WITH_COST = {"cost": 1e-6} | USAGE


async def test_a_stream_that_did_not_ask_says_its_usage_in_an_aside() -> None:
    parts = [chunk("a"), chunk("b", finish="stop"), LAST, DONE]
    app = App(parts)
    await app.ask(apart=True)
    assert app.bodies == [*parts[:2], app.bodies[2], DONE]  # one by one, as they came: the last chunk waits for nothing
    assert app.bodies[2].replace(COST + b",", b"") == aside(USAGE)
    assert usage.find(app.bodies[2]).cost * 10**9 == 1_000


async def test_what_is_left_when_the_gateway_has_taken_the_aside_out_is_openais_stream() -> None:
    parts = [chunk("a", 0), chunk("b", 1), chunk("", 0, "stop"), chunk("", 1, "length"), LAST, DONE]
    answer, events = await App(parts).ask(apart=True), Events("openai")
    assert events.feed(answer) == b"".join([*parts[:4], DONE])
    assert (events.done, events.usage()) == (True, usage.Usage(Tokens(8, 0, 2), Decimal("0.000001000")))


async def test_an_aside_without_a_known_cost_still_tells_the_tokens() -> None:
    app = App([chunk("a"), LAST, DONE])

    async def forgotten(request_id: str) -> None:
        return None

    app.replica.books.settled = forgotten
    assert await app.ask(apart=True) == b"".join([chunk("a"), aside(USAGE), DONE])


async def test_usage_in_every_chunk_passes_untouched_until_the_last() -> None:
    small = {"prompt_tokens": 8, "total_tokens": 9, "completion_tokens": 1}
    parts = [chunk("a", usage=small), chunk("b", finish="stop", usage=USAGE), LAST, DONE]
    assert (await App(parts).ask()) == b"".join(
        [*parts[:2], LAST.replace(b'"usage":{', b'"usage":{' + COST + b","), DONE]
    )


async def test_a_stream_that_ends_in_an_error_has_no_aside() -> None:
    parts = [chunk("a"), chunk("b", finish="stop"), event({"error": {"message": "died"}}), DONE]
    assert await App(parts).ask(apart=True) == b"".join(parts)


TRAPS = [
    '"usage":{',
    '"choices":[],"usage":{}',
    '"finish_reason":"stop"',
    "data: [DONE]\n\n",
    "\n\n: flotilla {}\n\n",
    'x"usage":{"cost":9}',
]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("text", TRAPS)
async def test_text_that_looks_like_usage_is_text(text: str, apart: bool) -> None:
    parts = [chunk(text), chunk(text, finish="stop"), LAST, DONE]
    answer = await App(parts).ask(apart=apart)
    events = answer.split(b"\n\n")
    chunks = [json.loads(e[6:]) for e in events if e.startswith(b"data: {")]
    assert [c["choices"][0]["delta"]["content"] for c in chunks if c["choices"]] == [text, text]
    assert [c["usage"] for c in chunks if "usage" in c] == ([] if apart else [WITH_COST])
    asides = [json.loads(e[11:])["usage"] for e in events if e.startswith(b": flotilla ")]
    assert asides == ([WITH_COST] if apart else [])


@pytest.mark.parametrize("text", TRAPS)
async def test_text_that_looks_like_usage_is_text_in_a_whole_answer_too(text: str) -> None:
    body = compact({"choices": [{"message": {"content": text}}], "usage": USAGE})
    assert (await App([body], b"application/json").ask()).replace(COST + b",", b"") == body
    body = compact({"choices": [{"message": {"content": text}}]})
    assert await App([body], b"application/json").ask() == body


async def test_a_request_is_admitted_and_left_even_if_the_server_fails() -> None:
    app = App([])

    async def broken(scope, receive, send) -> None:
        assert app.replica.books._in_http == 1
        raise RuntimeError("no")

    scope = {"type": "http", "path": "/v1/x", "headers": [(b"x-flotilla-secret", SECRET.encode())]}
    with pytest.raises(RuntimeError):
        await Settling(broken, app.replica.books, SECRET)(scope, None, None)
    assert app.replica.books._in_http == 0


# -- /v1/messages

MESSAGE_USAGE = {"input_tokens": 8, "output_tokens": 2}


def named(name: str, **members: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + compact({"type": name, **members}) + b"\n\n"


async def test_a_message_gains_its_cost() -> None:
    block = {"type": "tool_use", "input": {"usage": {"x": 1}}}  # the model's own words
    body = compact({"type": "message", "content": [block], "usage": MESSAGE_USAGE})
    answer = await App([body], b"application/json").ask(path="/v1/messages")
    assert json.loads(answer)["usage"] == MESSAGE_USAGE | {"cost": 1e-6}
    assert answer.replace(COST + b",", b"") == body


async def test_a_streamed_message_gains_its_cost_where_its_tokens_are_final() -> None:
    parts = [
        named("message_start", message={"content": [], "usage": {"input_tokens": 8, "output_tokens": 0}}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": '"usage":{'}),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage=MESSAGE_USAGE),
        named("message_stop"),
    ]
    app = App(parts)
    await app.ask(path="/v1/messages")
    assert app.bodies == [*parts[:2], parts[2].replace(b'"usage":{', b'"usage":{' + COST + b","), parts[3]]


# -- /v1/responses

RESPONSE_USAGE = {"input_tokens": 8, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2}
TOOLS = [{"type": "function", "name": "f", "parameters": {"properties": {"usage": {"type": "string"}}}}]


def response(usage: dict | None = RESPONSE_USAGE, **members: object) -> dict:
    return {"id": f"resp_0011aabb_{ONE}", "tools": TOOLS, "background": False, "usage": usage, "user": None} | members


async def test_a_response_gains_its_cost_in_its_own_usage() -> None:
    late = {"usage": {"x": 1}}  # a member after the usage that looks like one
    body = compact(response(input_messages=[late]))
    answer = json.loads(await App([body], b"application/json").ask(path="/v1/responses"))
    assert answer == response(RESPONSE_USAGE | {"cost": 1e-6}, input_messages=[late])


async def test_a_response_that_is_not_over_names_no_cost() -> None:
    body = compact(response(usage=None, status="queued"))
    assert await App([body], b"application/json").ask(path="/v1/responses") == body


async def test_a_streamed_response_gains_its_cost_in_its_last_event() -> None:
    parts = [
        named("response.created", response=response(usage=None)),
        named("response.output_text.delta", delta='"usage":{'),
        named("response.completed", response=response(), sequence_number=3),
    ]
    app = App(parts)
    await app.ask(path="/v1/responses")
    assert app.bodies[:2] == parts[:2]
    last = json.loads(app.bodies[2].partition(b"data: ")[2])
    assert last["response"] == response(RESPONSE_USAGE | {"cost": 1e-6})


async def test_an_earlier_response_is_told_with_its_own_cost() -> None:
    app = App([compact(response())], b"application/json")
    app.replica.books.admit(TWO, "demo", stored=True)
    app.replica.step([engine_id(TWO)], [over(engine_id(TWO))], lasts_ns=7_000)
    app.replica.books.leave(TWO)
    answer = json.loads(await app.ask(path=f"/v1/responses/resp_0011aabb_{TWO}"))
    assert answer["usage"]["cost"] == 7e-6


async def test_a_response_whose_cost_is_forgotten_names_none() -> None:
    body = compact(response())
    assert await App([body], b"application/json").ask(path=f"/v1/responses/resp_0011aabb_{TWO}") == body


@pytest.mark.parametrize("stream", [True, False])
async def test_work_in_the_background_keeps_its_tenant(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_KEEP_S", -1.0)
    told = response(usage=None, status="queued", background=True)
    parts = [named("response.created", response=told)] if stream else [compact(told)]
    app = App(parts, b"text/event-stream" if stream else b"application/json")
    app.works = False
    await app.ask(path="/v1/responses")
    app.replica.books.reading()
    app.replica.books.sweep()  # it still waits in the engine's queue
    app.replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    (charge,) = app.replica.books.reading().charges
    assert (charge.tenant, charge.amounts.loaded) == ("demo", 1_000)


@given(st.integers(0, 10**15), st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=3))
def test_the_cost_is_exact_to_the_nano_dollar(nanousd: int, usage: dict) -> None:
    body = compact({"x": 1, "usage": usage})
    body = with_cost(body, last_usage(body), nanousd)
    found = json.loads(body, parse_float=Decimal)["usage"]
    assert found.pop("cost") * 10**9 == nanousd
    assert found == usage


STUMBLED = compact({"error": {"message": "'role'", "type": "InternalServerError", "param": None, "code": 500}})


async def test_what_the_server_cannot_read_is_the_callers_fault() -> None:
    app = App([STUMBLED], b"application/json", 500)
    app.works = False
    found = json.loads(await app.ask())["error"]
    assert (app.sent[0]["status"], found["code"]) == (400, 400)
    assert found["message"] == "the engine cannot read this request: 'role'"
    assert dict(app.sent[0]["headers"])[b"content-length"] == b"%d" % len(b"".join(app.bodies))


@pytest.mark.parametrize(("works", "healthy"), [(True, True), (False, False)])
async def test_what_the_engine_broke_on_stays_its_own_fault(works: bool, healthy: bool) -> None:
    app = App([STUMBLED], b"application/json", 500)
    app.works, app.healthy = works, healthy
    assert await app.ask() == STUMBLED
    assert app.sent[0]["status"] == 500
