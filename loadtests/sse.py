"""Server-sent events from a stream of bytes that may be cut anywhere.

Only what OpenAI-compatible servers use: `data` fields, comments ignored, LF or CRLF line ends
(https://html.spec.whatwg.org/multipage/server-sent-events.html). No I/O, no clock.
"""

from __future__ import annotations


class EventParser:
    """Feed bytes, get the data of every event that became complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events completed by `chunk`, in order; several `data` lines are joined by a newline."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
        return events
