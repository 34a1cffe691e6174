"""Calls to a live API over plain HTTP, for what a client library hides: bytes, headers, and a connection that breaks.

May not happen in here: retries, interpretation of errors.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        """The ledger's id of the request."""
        return self.headers["x-flotilla-request-id"]


@dataclass(frozen=True)
class Caller:
    """Who calls which API."""

    port: int
    key: str | None

    def open(self, path: str, body: Any = None, timeout_s: float = 60.0, **headers: str) -> Stream:
        """Send a request over a connection of its own and return as soon as the answer's headers are there."""
        stream = self.send(path, body, timeout_s, **headers)
        stream.begin()
        return stream

    def send(self, path: str, body: Any = None, timeout_s: float = 60.0, **headers: str) -> Stream:
        """Send a request without waiting for anything. `body`: JSON value, or bytes as they are, or None for a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent["authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["content-type"] = "application/json"
        connection.request("GET" if data is None else "POST", path, data, sent)
        return Stream(connection)

    def call(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request and read the whole answer."""
        stream = self.open(path, body, **headers)
        try:
            return Answer(stream.status, stream.headers, stream.rest())
        finally:
            stream.close()

    def many(self, path: str, bodies: list[Any], at_once: int = 8) -> list[Answer]:
        """Send requests side by side, each over a connection of its own; answers in the order of the bodies."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda body: self.call(path, body), bodies))


class Stream:
    """An answer under way. Close it early and the server sees its caller go."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response: http.client.HTTPResponse | None = None
        self.status, self.headers = 0, dict[str, str]()

    def begin(self) -> None:
        """Wait for the answer's headers."""
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    def rest(self) -> bytes:
        """All bytes that are still to come."""
        assert self._response is not None
        return self._response.read()

    def events(self) -> Iterator[tuple[float, str]]:
        """Events as (monotonic seconds of arrival, data). Ends when the connection does, however it does."""
        assert self._response is not None
        try:
            while line := self._response.readline():
                if line.startswith(b"data: "):
                    yield time.monotonic(), line.removeprefix(b"data: ").decode().rstrip("\n")
        except (http.client.HTTPException, OSError):
            return

    def close(self) -> None:
        """Break the connection."""
        if self._response is not None:
            self._response.close()  # it holds the socket too
        self._connection.close()


def chat(model: str, text: str = "Count the ships.", max_tokens: int = 16, **more: Any) -> dict[str, Any]:
    """A chat request of a known length."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens,
            "ignore_eos": True, **more}
