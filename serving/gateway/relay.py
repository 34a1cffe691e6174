"""From a replica to the caller: the answer's bytes, untouched.

A replica that cannot be reached is replaced by another as long as nothing has been sent; after the first byte a
failure becomes one error event of the stream and no `[DONE]`, so that no client takes half an answer for a whole one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from serving.errors import FlotillaError, NoReplica, ReplicaFailed, UpstreamTimeout
from serving.gateway import errors as table
from serving.gateway import usage
from serving.gateway.ports import ReplicaDirectory

_TRIES = 3  # replicas asked before the caller is told that there is none
_CONNECT_S = 5.0
_EVENT_END = b"\n\n"  # as vLLM ends its events
_ERROR_EVENT = b'\ndata: {"error"'  # line breaks are escaped in JSON, so no text looks like it
_PASSED = ("content-type", "retry-after")


@dataclass
class Answer:
    """What became of one answer. `first_byte_at`: monotonic seconds."""

    code: int = 0
    begun: bool = False
    over: bool = False  # the last message is on its way
    whole: bool = False
    first_byte_at: float | None = None
    usage: usage.Usage | None = None


@dataclass(frozen=True)
class Call:
    """One request on its way upstream."""

    model: str
    path: str
    body: bytes
    headers: dict[str, str]
    timeout_s: float


class Relay:
    """Sends calls to replicas and their answers back. One per event loop; `close` it at the end."""

    def __init__(self, replicas: ReplicaDirectory) -> None:
        self._replicas = replicas
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def run(self, call: Call, send: Any, answer: Answer, extra: list[tuple[bytes, bytes]]) -> None:
        """Relay one call, filling `answer` on the way. `extra`: headers added to the answer.

        Raises: NoReplica, ReplicaFailed, UpstreamTimeout, as long as nothing has been sent to the caller.
        """
        try:
            async with await self._reach(call) as upstream:
                answer.code = upstream.status
                found = upstream.headers
                headers = [(k.encode(), found[k].encode("latin-1")) for k in _PASSED if k in found]
                start = {"type": "http.response.start", "status": upstream.status}
                if upstream.headers.get("content-type", "").startswith("text/event-stream"):
                    await self._stream(upstream, send, answer, {**start, "headers": headers + extra})
                else:
                    await self._whole(upstream, send, answer, start, headers + extra)
        except TimeoutError as error:
            failure: FlotillaError = UpstreamTimeout(f"no answer within {call.timeout_s:g} s")
            await _fail(failure, send, answer, error)
        except aiohttp.ClientError as error:
            failure = ReplicaFailed(f"the replica of {call.model!r} broke off its answer")
            await _fail(failure, send, answer, error)

    async def _reach(self, call: Call) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=call.timeout_s, sock_connect=_CONNECT_S)
        for _ in range(_TRIES):
            address = await self._replicas.choose(call.model)
            try:
                return await self._session.post(
                    f"http://{address}{call.path}", data=call.body, headers=call.headers, timeout=timeout
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue  # this replica is gone; nothing was sent to it
            except aiohttp.ServerDisconnectedError as error:
                raise ReplicaFailed(f"the replica of {call.model!r} closed the connection without an answer") from error
        raise NoReplica(call.model, 5)

    async def _whole(self, upstream: aiohttp.ClientResponse, send: Any, answer: Answer, start: dict[str, Any],
                     headers: list[tuple[bytes, bytes]]) -> None:
        body = await upstream.read()
        answer.usage = usage.find(body)
        answer.begun = True
        await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        answer.over = answer.whole = True
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, upstream: aiohttp.ClientResponse, send: Any, answer: Answer, start: dict[str, Any]) -> None:
        held, tail = b"", b"\n"
        async for part in upstream.content.iter_any():
            # only whole events go out, so that an error event can follow wherever the replica breaks off
            events, end, held = (held + part).rpartition(_EVENT_END)
            if not end:
                continue
            part, failed = _until_error(events + end)
            if not answer.begun:
                answer.begun, answer.first_byte_at = True, time.monotonic()
                await send(start)
            await send({"type": "http.response.body", "body": part, "more_body": True})
            tail = part if len(part) >= usage.TAIL else (tail + part)[-usage.TAIL :]
            if failed:
                held = b""  # vLLM says [DONE] even then
                break
        if not answer.begun:
            raise ReplicaFailed("the replica ended its stream before it began")
        answer.usage = usage.find(tail)
        answer.over, answer.whole = True, tail.endswith(b"data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": held})


def _until_error(events: bytes) -> tuple[bytes, bool]:
    """Whole events, without what follows the first one that tells of an error, and whether there is one."""
    at = (b"\n" + events).find(_ERROR_EVENT)
    if at < 0:
        return events, False
    return events[: events.index(_EVENT_END, at) + len(_EVENT_END)], True


async def _fail(failure: FlotillaError, send: Any, answer: Answer, cause: BaseException) -> None:
    if not answer.begun:
        raise failure from cause
    answer.over = True
    await send({"type": "http.response.body", "body": b"data: " + table.body(failure) + _EVENT_END})
