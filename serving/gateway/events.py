"""A stream on its way through: whole events only, an error ends it, and the usage is read in passing.

Where the caller did not ask for usage, the replica says it in an aside: a comment event that stays here.

One `Events` per stream, fed inside the socket's callback, so every line here runs once per token: no parsing, only
searches for byte strings. Line breaks are escaped in JSON, so no text looks like an event of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import FlotillaError
from serving.gateway import errors as table
from serving.gateway import usage
from serving.gateway.endpoints import Dialect

_END = b"\n\n"  # as vLLM ends its events
_DONE = b"data: [DONE]\n\n"
_ASIDE = b": flotilla "  # as serving.engines.costs begins it; inside JSON no line begins
_DATA_ERROR, _EVENT_ERROR = b'\ndata: {"error"', b"\nevent: error"
_USAGE, _RESPONSE = b'"usage":{', b'"response":{'
_ENDS = (b"completed", b"incomplete", b"failed", b"cancelled")
_LAST = {"messages": (b"event: message_stop\n",),
         "responses": tuple(b"event: response.%b\n" % end for end in _ENDS)}


@dataclass
class Events:
    """The state of one stream. `failed`: an error event has passed. `done`: its last event has."""

    dialect: Dialect
    failed: bool = False
    done: bool = False
    _held: bytes = b""
    _with_usage: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """What may go out now: whole events, no asides, nothing after an error."""
        if self.failed:
            return b""  # vLLM says [DONE] even then
        if self._held or not data.endswith(_END):
            events, end, self._held = (self._held + data).rpartition(_END)
            if not end:
                return b""
            data = events + end
        if b"error" in data:
            data = self._until_error(data)
        if _USAGE in data:
            self._with_usage, data = data, _without_asides(data)
        if self.dialect != "openai":
            self._look_for_end(data)
        elif data.endswith(_DONE):
            self.done = True
        return data

    def usage(self) -> usage.Usage | None:
        """The usage that the stream has told last."""
        return usage.find(self._with_usage) if self._with_usage else None

    def rest(self) -> bytes:
        """What never became a whole event; a stream that ended as it should has none."""
        held, self._held = self._held, b""
        return held

    def _look_for_end(self, data: bytes) -> None:
        if self.dialect == "responses" and _RESPONSE not in data:
            return  # a delta, as nearly all are
        for last in _LAST[self.dialect]:
            if data.startswith(last) or b"\n" + last in data:
                self.done = True

    def _until_error(self, data: bytes) -> bytes:
        lines = b"\n" + data
        found = [at for mark in (_DATA_ERROR, _EVENT_ERROR) if (at := lines.find(mark)) >= 0]
        if not found:
            return data
        self.failed, self._held = True, b""
        return data[: data.index(_END, min(found)) + len(_END)]


def _without_asides(data: bytes) -> bytes:
    """Events without those that are meant for the gateway."""
    while (at := (b"\n" + data).find(b"\n" + _ASIDE)) >= 0:
        data = data[:at] + data[data.index(_END, at) + len(_END) :]
    return data


def error_event(error: FlotillaError, dialect: Dialect) -> bytes:
    """The event that tells a caller in mid-stream of an error."""
    name = b"" if dialect == "openai" else b"event: error\n"
    return name + b"data: " + table.body(error, dialect) + _END
