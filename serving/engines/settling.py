"""The ASGI layer around vLLM's server in a replica: lets only the gateway in, and puts the cost into the answer.

Bytes pass untouched, except that the usage of an answer gains `"cost"` (USD). A stream of chat or completion chunks
whose caller did not ask for usage gets it in its last chunk instead of one more chunk without choices, so that clients
which read `choices[0]` keep working. May not happen in here: routing, limits, anything per token.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import logging
from collections.abc import Callable
from typing import Any

from serving.engines.answers import Answer, MessagesAnswer, ResponsesAnswer
from serving.engines.books import REQUEST_ID, Books
from serving.engines.costs import tokens_of
from serving.engines.spending import BUDGET_HEADER, Guard
from serving.fleet.records import EngineOutcome

log = logging.getLogger(__name__)
SECRET_HEADER = b"x-flotilla-secret"
TENANT_HEADER = b"x-flotilla-tenant"
ADAPTER_HEADER = b"x-flotilla-adapter"  # what to load for a request whose adapter the fleet file does not name
USAGE_HEADER = b"x-flotilla-usage"  # "apart": the caller did not ask for a usage chunk
REQUEST_ID_HEADER = b"x-request-id"
_OPEN = {"/health", "/metrics"}
_RESPONSES, _MESSAGES = "/v1/responses", "/v1/messages"


class Settling:
    """vLLM's app behind the gateway's secret, with costs in its answers."""

    def __init__(self, app: Any, books: Books, secret: str, healthy: Callable[[], bool] = lambda: True,
                 tell_adapter: Callable[[bytes], None] | None = None) -> None:
        """`healthy`: whether the engine is alive. `tell_adapter`: takes what a gateway says of a request's adapter."""
        self._app, self._books, self._secret, self._healthy = app, books, secret.encode(), healthy
        self._tell_adapter = tell_adapter
        self._cancelling: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # no way past the gateway
            return
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(SECRET_HEADER, b""), self._secret):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"only the gateway may call a replica\n"})
            return
        if not self._books.accepting:
            await _refuse(send)
            return
        if self._tell_adapter is not None and (told := headers.get(ADAPTER_HEADER)):
            self._tell_adapter(told)
        path = scope["path"]
        request_id = headers.get(REQUEST_ID_HEADER, b"").decode("latin-1")
        self._books.admit(request_id, headers.get(TENANT_HEADER, b"-").decode("latin-1"), path == _RESPONSES)
        outcome: EngineOutcome = "aborted"
        guard: Guard | None = None
        if (most := headers.get(BUDGET_HEADER, b"")).isdigit():
            guard = Guard(path, receive, send)
            receive, send = guard.receive, guard.send
            self._books.watch(request_id, int(most), guard.stop)
        answer = self._answer(path, send, request_id, headers)
        try:
            answer.unread = lambda: self._healthy() and not self._books.worked_on(request_id)
            await self._app(scope, receive, answer.send)
            if guard is None or not await guard.finish():
                outcome = "finished"
        finally:
            self._books.leave(request_id, outcome, tokens_of(answer.usage))

    def _answer(self, path: str, send: Any, request_id: str, headers: dict[bytes, bytes]) -> Answer:
        books = self._books
        if path.startswith(_RESPONSES):
            told = REQUEST_ID.search(path)  # an earlier response is told about, not this request
            cost = functools.partial(books.settled, told.group() if told else request_id)
            return ResponsesAnswer(send, cost, lambda response_id: books.in_background(
                request_id, functools.partial(self._cancel, response_id)))
        cost = functools.partial(books.settled, request_id)
        if path.startswith(_MESSAGES):
            return MessagesAnswer(send, cost)
        return Answer(send, cost, headers.get(USAGE_HEADER) == b"apart")

    def _cancel(self, response_id: str) -> None:
        """End a response in the background as its caller would."""
        path = f"{_RESPONSES}/{response_id}/cancel"
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
                 "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": []}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                log.error("a response whose budget is used up could not be cancelled: %d", message["status"])

        task = asyncio.ensure_future(self._app(scope, receive, send))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)


async def _refuse(send: Any) -> None:
    """Nothing can be written down, and the fleet file says that no request may go unmetered."""
    said = {"message": "the ledger cannot be written just now, and its spool is full; retry later",
            "type": "server_error", "param": None, "code": "ledger_full"}
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": said}).encode()})
