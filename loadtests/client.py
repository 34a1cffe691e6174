"""One request over geventhttpclient, seen the way a user sees it.

Every chunk is stamped when it is read and understood later; what the stamps mean is decided in `metrics`. A failure of
any kind is part of the observation and never an exception, because the next request must leave on time. This module
needs gevent's loop and must not be imported by the report.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import msgspec
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse

from loadtests.connections import client_of
from loadtests.endpoint import Endpoint
from loadtests.looplag import LagProbe
from loadtests.observation import DETAIL_LIMIT, Observation, Usage, error_text
from loadtests.records import RequestError

__all__ = ["ChatClient", "Observation", "Usage"]

_REFUSED = (ConnectionRefusedError, socket.gaierror)
_BLOCK = 16_384
#: Pieces that may wait to be parsed. Streams differ in it, for those of one engine get their chunks in step and would
#: otherwise all be parsed in the same moment.
_FEWEST, _MOST = 32, 96


class ChatClient:
    """Sends requests to one endpoint, over as many kept-alive connections as are needed."""

    def __init__(
        self, endpoint: Endpoint, timeout_s: float, now: Callable[[], float], lag: LagProbe | None = None
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._now = now
        self._lag = lag or LagProbe()
        self._encode = msgspec.json.Encoder().encode
        self._http = client_of(endpoint, timeout_s, _BLOCK)

    def send(self, body: Mapping[str, Any], request_id: str) -> Observation:
        """POST one body (a chat completion; with `input`, embeddings) and read the whole answer.

        Never raises; a killed greenlet is observed too. Call `judge` on what comes back before looking into it.
        """
        stream = bool(body.get("stream"))
        # Made before the clock starts: what it takes is the generator's time, and shows as lateness.
        payload = self._encode(body)
        headers = self._endpoint.headers() | {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            "x-request-id": request_id,
        }
        seen = Observation(sent=self._now())
        try:
            with gevent.Timeout(self._timeout_s):
                self._exchange(payload, headers, body, seen)
        except gevent.Timeout:
            seen.error = RequestError(kind="timeout", detail=f"not complete after {self._timeout_s:g} s")
        except gevent.GreenletExit:
            seen.error = RequestError(kind="interrupted", detail="the run was stopped")
        except (OSError, HTTPParseError) as error:
            seen.error = _transport_error(error, seen)
        seen.ended = seen.ended or self._now()
        return seen

    def close(self) -> None:
        self._http.close()

    def _exchange(self, payload: bytes, headers: dict[str, str], body: Mapping[str, Any], seen: Observation) -> None:
        batch = body.get("input")
        path = "/v1/chat/completions" if batch is None else "/v1/embeddings"
        response = self._http.request("POST", self._endpoint.path(path), payload, headers)
        try:
            seen.status = response.status_code
            server_id = response.get("x-request-id")
            seen.server_request_id = server_id[0] if isinstance(server_id, list) else server_id
            if seen.status != 200:
                seen.error = RequestError(kind=f"http_{seen.status}", detail=error_text(response.read()))
            elif body.get("stream"):
                self._read_stream(response, seen)
            else:
                whole = response.read()
                stamp = seen.ended = self._now()
                if batch is None:
                    seen.take_whole(whole, stamp)
                else:
                    seen.take_vectors(whole, stamp, len(batch))
        finally:
            response.release()

    def _read_stream(self, response: HTTPSocketPoolResponse, seen: Observation) -> None:
        now, lag, most = self._now, self._lag, random.randint(_FEWEST, _MOST)
        separator = self._read_first_event(response, seen)
        # readline() gives b"" at the end of the body; read() then gives a rest without its separator.
        while piece := response.readline(separator) or response.read():
            lag.chunks += 1
            if seen.put(now(), piece) >= most:
                seen.understand()
        seen.ended = now()
        seen.read_to_end = True

    def _read_first_event(self, response: HTTPSocketPoolResponse, seen: Observation) -> bytes:
        """Line by line, since an event's end is not known to be LF LF or CRLF CRLF before one was seen; returns it."""
        ending = b"\n"
        while line := response.readline(b"\n") or response.read():
            seen.put(self._now(), line)
            ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            if not line.strip():
                break
        return ending * 2


def _transport_error(error: Exception, seen: Observation) -> RequestError:
    detail = f"{type(error).__name__}: {error}"[:DETAIL_LIMIT]
    if isinstance(error, _REFUSED):
        return RequestError(kind="connect", detail=detail)
    if isinstance(error, TimeoutError):
        return RequestError(kind="timeout", detail=detail)
    return RequestError(kind="truncated" if seen.status == 200 else "transport", detail=detail)
