"""What one request showed: stamped pieces of the answer, and what they turn out to say.

Reading and understanding are apart. A piece is stamped and put aside when it arrives, and parsed later: many streams
get their chunks in the same moment, and the last of them must not wait until all others are understood. No socket here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from loadtests.records import Gaps, RequestError
from loadtests.sse import EventParser

DETAIL_LIMIT = 300
_decode = msgspec.json.Decoder().decode


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
    """What one request showed. Times in seconds on the caller's clock; grows while the response arrives.

    stamps: of the chunks that carried content, reasoning or a part of a tool call. first_answer: the first of them that
    was no reasoning. first_event, last_event: of all events, empty ones too. pieces: how many reads brought something,
    the usage and role chunks included. read_to_end: a stream that its sender ended, not one that broke.
    """

    sent: float
    stamps: list[float] = field(default_factory=list)
    first_answer: float | None = None
    first_event: float | None = None
    last_event: float | None = None
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    usage: Usage = Usage()
    finish_reason: str | None = None
    status: int | None = None
    server_request_id: str | None = None
    ended: float = 0.0
    error: RequestError | None = None
    body_bytes: int = 0
    pieces: int = 0
    done: bool = False
    read_to_end: bool = False
    _waiting: list[tuple[float, bytes]] = field(default_factory=list)
    _parser: EventParser = field(default_factory=EventParser)

    def put(self, stamp: float, piece: bytes) -> int:
        """Keep a piece of a stream for `understand`; returns how many wait."""
        self._waiting.append((stamp, piece))
        self.pieces += 1
        return len(self._waiting)

    def understand(self) -> None:
        """Parse what waits."""
        waiting, self._waiting = self._waiting, []
        for stamp, piece in waiting:
            self.body_bytes += len(piece)
            for data in self._parser.feed(piece):
                if data == "[DONE]":
                    self.done = True
                else:
                    self._take_event(data, stamp)

    def judge(self) -> Observation:
        """The answer has ended or broken: parse what waits, and say whether it was whole. Again, it changes nothing."""
        # What had arrived of a broken stream counts as well; an error event in it says more than the break.
        before, self.error = self.error, None
        self.understand()
        self.error = self.error or before
        if self.read_to_end and self.error is None and not self.done:
            self.error = RequestError(kind="truncated", detail="the stream ended without [DONE]")
        if self.read_to_end and self.error is None and not self.stamps and not self.usage.completion_tokens:
            self.error = RequestError(kind="empty", detail="the stream carried no content")
        return self

    def take_whole(self, body: bytes, stamp: float) -> None:
        """A chat completion in one piece."""
        answer = self._answer(body)
        if answer is None:
            return
        if self._take_choices(answer, "message", stamp) or self.usage.completion_tokens:
            self.stamps.append(stamp)
        else:
            self.error = RequestError(kind="empty", detail="the answer carried no content")

    def take_vectors(self, body: bytes, stamp: float, wanted: int) -> None:
        """The embeddings of a batch of `wanted` texts."""
        answer = self._answer(body)
        if answer is None:
            return
        data = answer.get("data")
        got = len(data) if isinstance(data, list) else 0
        if got != wanted:
            self.error = RequestError(kind="empty", detail=f"{got} embeddings for {wanted} inputs")
        else:
            self.stamps.append(stamp)

    def gaps_ms(self) -> tuple[float, ...]:
        """Gaps between content chunks, milliseconds to the microsecond."""
        return tuple(np.round(np.diff(self.stamps) * 1e3, 3).tolist()) if len(self.stamps) > 1 else ()

    def gaps(self) -> Gaps | None:
        """Summary of the gaps between content chunks; None with fewer than two."""
        if len(self.stamps) < 2:
            return None
        gaps = np.diff(self.stamps) * 1e3
        p50, p99 = np.percentile(gaps, (50, 99))
        return Gaps(count=len(gaps), p50=float(p50), p99=float(p99), max=float(gaps.max()))

    def reply(self) -> str:
        """The text of the answer; the reasoning where nothing else was said or called."""
        return "".join(self.texts) or ("" if self.calls else "".join(self.reasoning))

    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls as history takes them; none unless every one of them can be read, for servers refuse others."""
        found = []
        for number, call in sorted(self.calls.items()):
            if not call["name"] or json_object(call["arguments"].encode()) is None:
                return []
            function = {"name": call["name"], "arguments": call["arguments"]}
            found.append({"id": call["id"] or f"call_{number}", "type": "function", "function": function})
        return found

    def _answer(self, body: bytes) -> dict[str, Any] | None:
        """A whole answer that is no error, its usage taken."""
        self.body_bytes, self.pieces = len(body), 1
        answer = json_object(body)
        if answer is None:
            detail = body[:DETAIL_LIMIT].decode("utf-8", "replace")
            self.error = RequestError(kind="bad_json", detail=detail)
        elif answer.get("error"):
            self.error, answer = RequestError(kind="error_event", detail=error_text(body)), None
        else:
            self.usage = Usage.parse(answer.get("usage"))
        return answer

    def _take_event(self, data: str, stamp: float) -> None:
        event = json_object(data.encode())
        if event is None:
            self.error = self.error or RequestError(kind="bad_json", detail=data[:DETAIL_LIMIT])
            return
        if event.get("error"):
            self.error = RequestError(kind="error_event", detail=error_text(data.encode()))
            return
        self.last_event = stamp
        if self.first_event is None and event.get("choices"):
            self.first_event = stamp
        if event.get("usage"):
            self.usage = Usage.parse(event["usage"])
        if self._take_choices(event, "delta", stamp):
            self.stamps.append(stamp)

    def _take_choices(self, event: dict[str, Any], part: str, stamp: float) -> bool:
        """Collect text, reasoning, tool calls and finish reason of `choices`; True if any of the first three came."""
        choices = event.get("choices")
        found = False
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            piece = choice.get(part)
            piece = piece if isinstance(piece, dict) else {}
            text = piece.get("content") or choice.get("text")
            thought = piece.get("reasoning") or piece.get("reasoning_content")
            answered = isinstance(text, str) and bool(text)
            if answered:
                self.texts.append(text)
            if piece.get("tool_calls"):
                answered = self._take_calls(piece["tool_calls"]) or answered
            if answered and self.first_answer is None:
                self.first_answer = stamp
            if isinstance(thought, str) and thought:
                self.reasoning.append(thought)
                found = True
            found = found or answered
        return found

    def _take_calls(self, parts: object) -> bool:
        """Tool calls come in parts that belong together by index; True if any part said something."""
        found = False
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            if not isinstance(part, dict):
                continue
            function = part.get("function")
            function = function if isinstance(function, dict) else {}
            index = _whole(part.get("index"))
            call = self.calls.setdefault(number if index is None else index, {"id": "", "name": "", "arguments": ""})
            call["id"] = call["id"] or str(part.get("id") or "")
            call["name"] = call["name"] or str(function.get("name") or "")
            call["arguments"] += str(function.get("arguments") or "")
            found = found or bool(function.get("name") or function.get("arguments"))
        return found


def error_text(body: bytes) -> str:
    """The message of an OpenAI error body, or its beginning."""
    error = (json_object(body) or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or body.decode("utf-8", "replace"))[:DETAIL_LIMIT]


def json_object(body: bytes) -> dict[str, Any] | None:
    """The object that a text is, or None."""
    try:
        value = _decode(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
