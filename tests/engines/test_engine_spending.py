"""Budgets in a replica: a request that reaches what it may cost ends with an error, and costs no more than that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from engine_samples import ONE, TWO, Replica, engine_id, over

from serving.engines.settling import Settling
from serving.gateway.events import Events

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PART = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'


class Server:
    """vLLM's server with a request that runs until its caller leaves. A step costs a thousand nano-dollars."""

    def __init__(self, stream: bool = True, steps: int = 1_000) -> None:
        self.replica, self.stream, self.steps, self.done = Replica().ready(), stream, steps, 0
        self.aborted = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        leaves = asyncio.ensure_future(receive())
        kind = b"text/event-stream" if self.stream else b"application/json"
        if self.stream:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for _ in range(self.steps):
            self.replica.step([engine_id(ONE)])
            self.done += 1
            if self.stream:
                await send({"type": "http.response.body", "body": PART, "more_body": True})
            await asyncio.sleep(0)
            if leaves.done():
                assert leaves.result() == {"type": "http.disconnect"}
                self.replica.step([], [over(engine_id(ONE))])
                self.aborted = True
                break
        else:
            self.replica.step([engine_id(ONE)], [over(engine_id(ONE))])
        leaves.cancel()
        if not self.stream:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"null" if not self.stream else b""})

    async def ask(self, budget: int | None, path: str = CHAT) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []
        headers = [(b"x-request-id", ONE.encode()), (b"x-flotilla-tenant", b"demo"), (b"x-flotilla-secret", b"s")]
        if budget is not None:
            headers.append((b"x-flotilla-budget-nanousd", b"%d" % budget))
        asked = iter([{"type": "http.request", "body": b"{}", "more_body": False}])

        async def receive() -> Any:
            for message in asked:
                return message
            await asyncio.Event().wait()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await Settling(self, self.replica.books, "s")(scope, receive, send)
        assert not sent[-1].get("more_body"), "the answer has an end"
        return sent[0]["status"], b"".join(m.get("body", b"") for m in sent)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("budget", [9_000, 20_000, 77_777])
async def test_a_stream_never_costs_more_than_its_budget(path: str, budget: int) -> None:
    server = Server()
    status, body = await server.ask(budget, path)
    assert server.aborted and status == 200
    assert server.done * 1_000 <= budget
    assert server.done * 1_000 >= budget - 7_000, "and uses most of it"
    last = body.rstrip().rpartition(b"data: ")[2]
    said = json.loads(last)["error"]
    assert "budget" in said["message"]
    assert said["type"] == ("billing_error" if path == MESSAGES else "insufficient_quota")


async def test_the_gateway_takes_its_event_for_the_streams_end() -> None:
    for path, dialect in ((CHAT, "openai"), (MESSAGES, "messages"), (RESPONSES, "responses")):
        _, body = await Server().ask(20_000, path)
        events = Events(dialect)  # type: ignore[arg-type]
        assert events.feed(body + b"data: [DONE]\n\n") == body
        assert events.failed


async def test_a_whole_answer_becomes_402() -> None:
    server = Server(stream=False)
    status, body = await server.ask(20_000)
    assert (status, json.loads(body)["error"]["code"]) == (402, "budget_exhausted")
    assert server.aborted and server.done * 1_000 <= 20_000


@pytest.mark.parametrize("budget", [None, 10**9])
async def test_who_stays_within_it_is_left_alone(budget: int | None) -> None:
    server = Server(steps=30)
    status, body = await server.ask(budget)
    assert (status, body) == (200, PART * 30)
    assert not server.aborted


async def test_a_first_step_that_costs_the_whole_budget_is_the_last() -> None:
    server = Server()
    await server.ask(900)
    assert server.done == 1


def test_one_requests_budget_is_not_anothers() -> None:
    replica, stopped = Replica().ready(), []
    for request_id, most in ((ONE, 3_000), (TWO, 10**9)):
        replica.books.admit(request_id, "demo")
        replica.books.watch(request_id, most, lambda request_id=request_id: stopped.append(request_id))
    for _ in range(20):
        replica.step([engine_id(ONE), engine_id(TWO)])
    assert stopped == [ONE], "once"


def test_what_ended_by_itself_is_not_stopped() -> None:
    replica, stopped = Replica().ready(), []
    replica.books.admit(ONE, "demo")
    replica.books.watch(ONE, 1_000, lambda: stopped.append(ONE))
    replica.step([engine_id(ONE)], [over(engine_id(ONE))])
    assert not stopped


class Background(Server):
    """vLLM's server with a response that goes on after its answer, until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.working: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        said = b"{}"
        if scope["path"].endswith(f"/resp_00_{ONE}/cancel"):
            self.aborted = True
        else:
            self.working = asyncio.ensure_future(self._work())
            said = b'{"id":"resp_00_%s","background":true,"usage":null}' % ONE.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": said})

    async def _work(self) -> None:
        while not self.aborted and self.done < self.steps:
            self.replica.step([engine_id(ONE)])
            self.done += 1
            await asyncio.sleep(0)
        self.replica.step([], [over(engine_id(ONE))])


@pytest.mark.parametrize(("budget", "ends"), [(20_000, True), (10**9, False), (None, False)])
async def test_a_response_in_the_background_is_cancelled_at_its_budget(budget: int | None, ends: bool) -> None:
    server = Background()
    status, _ = await server.ask(budget, RESPONSES)
    assert status == 200 and server.working is not None
    await server.working
    assert server.aborted is ends
    assert server.done * 1_000 <= (budget or 10**9) and (ends or server.done == server.steps)
