"""One chat completion over geventhttpclient, seen the way a user sees it.

Every chunk is stamped when it is read; what the stamps mean is decided in `metrics`. A failure of any kind is
part of the observation and never an exception, because the next request must leave on time. This module needs
gevent's loop and must not be imported by the report.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent
import numpy as np
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse

from loadtests.endpoint import Endpoint
from loadtests.records import Gaps, RequestError
from loadtests.sse import EventParser

#: More than any machine has ports: the pool must never make a request wait for another one's connection.
_UNBOUNDED = 1_000_000
_DETAIL_LIMIT = 300
_REFUSED = (ConnectionRefusedError, socket.gaierror)


@dataclass(frozen=True, slots=True)
class Usage:
    """The response's `usage` block; None where the server did not say. cost is in USD."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None

    @staticmethod
    def parse(block: object) -> Usage:
        """Take what has the right type out of a `usage` object."""
        if not isinstance(block, dict):
            return Usage()
        details = block.get("prompt_tokens_details")
        cost = block.get("cost")
        return Usage(
            prompt_tokens=_whole(block.get("prompt_tokens")),
            cached_tokens=_whole(details.get("cached_tokens")) if isinstance(details, dict) else None,
            completion_tokens=_whole(block.get("completion_tokens")),
            cost_usd=float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
        )


@dataclass(slots=True)
class Observation:
    """What one request showed. Times in seconds on the caller's clock; grows while the response arrives."""

    sent: float
    stamps: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    usage: Usage = Usage()
    finish_reason: str | None = None
    status: int | None = None
    server_request_id: str | None = None
    ended: float = 0.0
    error: RequestError | None = None
    body_bytes: int = 0

    def gaps(self) -> Gaps | None:
        """Summary of the gaps between content chunks; None with fewer than two."""
        if len(self.stamps) < 2:
            return None
        gaps = np.diff(self.stamps) * 1e3
        p50, p99 = np.percentile(gaps, (50, 99))
        return Gaps(count=len(gaps), p50=float(p50), p99=float(p99), max=float(gaps.max()))

    def reply(self) -> str:
        """The text of the answer; the reasoning where nothing else was said."""
        return "".join(self.texts) or "".join(self.reasoning)


class ChatClient:
    """Sends chat completions to one endpoint, over as many kept-alive connections as are needed."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, now: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._now = now
        self._http = HTTPClient(
            endpoint.host,
            endpoint.port,
            ssl=endpoint.tls,
            concurrency=_UNBOUNDED,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
        )

    def chat(self, body: Mapping[str, Any], request_id: str) -> Observation:
        """POST one body and read the whole answer. Never raises; a killed greenlet is observed too."""
        payload = json.dumps(body).encode()
        headers = self._endpoint.headers() | {
            "content-type": "application/json",
            "accept": "text/event-stream" if body["stream"] else "application/json",
            "x-request-id": request_id,
        }
        seen = Observation(sent=self._now())
        try:
            with gevent.Timeout(self._timeout_s):
                self._exchange(payload, headers, bool(body["stream"]), seen)
        except gevent.Timeout:
            seen.error = RequestError(kind="timeout", detail=f"not complete after {self._timeout_s:g} s")
        except gevent.GreenletExit:
            seen.error = RequestError(kind="interrupted", detail="the run was stopped")
        except (OSError, HTTPParseError) as error:
            seen.error = _transport_error(error, seen)
        seen.ended = self._now()
        return seen

    def close(self) -> None:
        self._http.close()

    def _exchange(self, payload: bytes, headers: dict[str, str], stream: bool, seen: Observation) -> None:
        response = self._http.request("POST", self._endpoint.path("/v1/chat/completions"), payload, headers)
        try:
            seen.status = response.status_code
            server_id = response.get("x-request-id")
            seen.server_request_id = server_id[0] if isinstance(server_id, list) else server_id
            if seen.status != 200:
                seen.error = RequestError(kind=f"http_{seen.status}", detail=_error_text(response.read()))
            elif stream:
                self._read_stream(response, seen)
            else:
                self._read_whole(response, seen)
        finally:
            response.release()

    def _read_stream(self, response: HTTPSocketPoolResponse, seen: Observation) -> None:
        parser, done = EventParser(), False
        # readline() gives b"" at the end of the body; read() then gives a last line without its newline.
        while line := response.readline(b"\n") or response.read():
            stamp = self._now()
            seen.body_bytes += len(line)
            for data in parser.feed(line):
                if data == "[DONE]":
                    done = True
                else:
                    self._take_event(data, stamp, seen)
        if seen.error is None and not done:
            seen.error = RequestError(kind="truncated", detail="the stream ended without [DONE]")
        if seen.error is None and not seen.stamps and not seen.usage.completion_tokens:
            seen.error = RequestError(kind="empty", detail="the stream carried no content")

    def _take_event(self, data: str, stamp: float, seen: Observation) -> None:
        event = _json_object(data)
        if event is None:
            seen.error = seen.error or RequestError(kind="bad_json", detail=data[:_DETAIL_LIMIT])
            return
        if event.get("error"):
            seen.error = RequestError(kind="error_event", detail=_error_text(data.encode()))
            return
        if event.get("usage"):
            seen.usage = Usage.parse(event["usage"])
        if _take_choices(event, "delta", seen):
            seen.stamps.append(stamp)

    def _read_whole(self, response: HTTPSocketPoolResponse, seen: Observation) -> None:
        body = response.read()
        stamp = self._now()
        seen.body_bytes = len(body)
        answer = _json_object(body.decode("utf-8", "replace"))
        if answer is None:
            seen.error = RequestError(kind="bad_json", detail=body[:_DETAIL_LIMIT].decode("utf-8", "replace"))
        elif answer.get("error"):
            seen.error = RequestError(kind="error_event", detail=_error_text(body))
        else:
            seen.usage = Usage.parse(answer.get("usage"))
            if _take_choices(answer, "message", seen) or seen.usage.completion_tokens:
                seen.stamps.append(stamp)
            else:
                seen.error = RequestError(kind="empty", detail="the answer carried no content")


def _take_choices(event: dict[str, Any], part: str, seen: Observation) -> bool:
    """Collect text, reasoning and finish reason of `choices`; True if any text was there."""
    choices = event.get("choices")
    found = False
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        seen.finish_reason = choice.get("finish_reason") or seen.finish_reason
        piece = choice.get(part)
        piece = piece if isinstance(piece, dict) else {}
        text = piece.get("content") or choice.get("text")
        thought = piece.get("reasoning") or piece.get("reasoning_content")
        if isinstance(text, str) and text:
            seen.texts.append(text)
            found = True
        if isinstance(thought, str) and thought:
            seen.reasoning.append(thought)
            found = True
    return found


def _transport_error(error: Exception, seen: Observation) -> RequestError:
    detail = f"{type(error).__name__}: {error}"[:_DETAIL_LIMIT]
    if isinstance(error, _REFUSED):
        return RequestError(kind="connect", detail=detail)
    if isinstance(error, TimeoutError):
        return RequestError(kind="timeout", detail=detail)
    return RequestError(kind="truncated" if seen.status == 200 else "transport", detail=detail)


def _error_text(body: bytes) -> str:
    """The message of an OpenAI error body, or its beginning."""
    text = body.decode("utf-8", "replace")
    error = (_json_object(text) or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or text)[:_DETAIL_LIMIT]


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
