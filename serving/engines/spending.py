"""Ends a request whose cost reaches what it may cost, and says so.

The gateway has reserved an amount for the request and tells the replica, which alone sees the cost grow. At the mark
the engine is told what it is told when a caller leaves, so that it stops at its next step; the caller gets an error
instead of what would have followed. A response in the background, which no one waits for, is cancelled. May not happen
in here: counting money (`books`), limits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from serving.fleet.attribution import Charge

BUDGET_HEADER = b"x-flotilla-budget-nanousd"  # what the request may cost, as the gateway says
_AHEAD = 4
_SAID = ("the budget that holds for this request is used up: the answer ends here. What it has cost until now is "
         "charged")


class Guard:
    """One request with a budget: sits between vLLM's app and whoever carries its answer.

    `path`: of the request; it decides which form an error event has.
    """

    def __init__(self, path: str, receive: Any, send: Any) -> None:
        self._path, self._receive, self._send = path, receive, send
        self._over = asyncio.Event()
        self._begun = self._streams = self._ended = False

    def stop(self) -> None:
        """The budget is used up. Nothing that the app says from now on reaches the caller."""
        if not self._ended:
            self._over.set()

    async def receive(self) -> Any:
        """ASGI's receive: a budget that is used up looks to the app like a caller who has left."""
        if not self._over.is_set():
            asked = asyncio.ensure_future(self._receive())
            over = asyncio.ensure_future(self._over.wait())
            try:
                await asyncio.wait((asked, over), return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    return asked.result()
            finally:
                asked.cancel()
                over.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's send."""
        if self._over.is_set():
            return
        if message["type"] == "http.response.start":
            self._begun = True
            self._streams = any(name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                                for name, value in message["headers"])
        elif not message.get("more_body"):
            self._ended = True
        await self._send(message)

    async def finish(self) -> bool:
        """The app has ended: whether the budget was the reason, of which the caller is told then."""
        if not self._over.is_set() or self._ended:
            return False
        self._ended = True
        if not self._begun:
            body = json.dumps({"error": _error()}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await self._send({"type": "http.response.start", "status": 402, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})
        elif self._streams:
            await self._send({"type": "http.response.body", "body": _event(self._path)})
        else:  # half of a JSON document cannot be mended: its missing end says that it is broken
            raise RuntimeError("an answer was cut off in the middle")
        return True


def _error() -> dict[str, Any]:
    return {"message": _SAID, "type": "insufficient_quota", "param": None, "code": "budget_exhausted"}


def _event(path: str) -> bytes:
    """The event that ends a stream, as the path's clients read it."""
    if path.startswith("/v1/messages"):
        told = {"type": "error", "error": {"type": "billing_error", "message": _SAID}}
        return b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
    name = b"event: error\n" if path.startswith("/v1/responses") else b""
    return name + b"data: " + json.dumps({"error": _error()}).encode() + b"\n\n"


class _Watch:
    """A request that may cost `most` nano-USD. `work`: what it had cost by itself when it was last looked at."""

    __slots__ = ("most", "stop", "work")

    def __init__(self, most: int, stop: Callable[[], None]) -> None:
        self.most, self.stop, self.work = most, stop, 0


class Watches:
    """The requests of a replica that have a budget."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watch] = {}

    def __bool__(self) -> bool:
        return bool(self._watched)

    def add(self, request_id: str, most: int, stop: Callable[[], None]) -> None:
        """Call `stop`, once, before a request has cost more than `most` nano-USD."""
        self._watched[request_id] = _Watch(most, stop)

    def hand_over(self, request_id: str, stop: Callable[[], None]) -> None:
        """From now on a request that has a budget is ended otherwise."""
        if (watch := self._watched.get(request_id)) is not None:
            watch.stop = stop

    def drop(self, request_id: str) -> None:
        """The request is over."""
        self._watched.pop(request_id, None)

    def look(self, charges: Mapping[str, Charge], due: Callable[[int], int], works: Callable[[str], bool]) -> None:
        """Steps have been booked. `due`: what idle time adds to so much work; `works`: whether the engine is at it.

        The engine is some steps ahead of what it has told: a request is stopped while as much as it was charged with
        last still fits `_AHEAD` times.
        """
        for request_id, watch in list(self._watched.items()):
            charge = charges.get(request_id)
            if charge is None or charge.work == watch.work:
                continue
            grown = charge.work - watch.work if charge.trail.phase == "decode" and watch.work else 0
            watch.work = charge.work
            ahead = charge.work + _AHEAD * grown
            cost = ahead + charge.idle + charge.cold_start + due(ahead - charge.loaded_work)
            if cost >= watch.most and works(request_id):
                del self._watched[request_id]
                watch.stop()
