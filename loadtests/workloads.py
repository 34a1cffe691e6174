"""What the requests say: messages, tools, pictures and the body of each request.

Deterministic in the scenario's seed and in the salt of a pass. Lengths are approximate: the tokens really used
are in the records.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from loadtests import pictures, tools
from loadtests.arrivals import Arrival, Turn
from loadtests.scenario import MixModel, Scenario
from loadtests.texts import text_of

Message = dict[str, Any]


class Prompts:
    """Writes the requests of one pass. Passes with another salt say other words of the same lengths, so that one does
    not find the other's prompts in the server's prefix cache."""

    def __init__(self, scenario: Scenario, salt: int = 0) -> None:
        self._scenario = scenario
        self._salt = salt

    def system(self, arrival: Arrival) -> Message | None:
        """The system message that all users of one kind and model share, or None for users without one."""
        if not arrival.system_tokens:
            return None
        seed = self._seed(f"{self._scenario.seed}/{arrival.model}/{arrival.user_kind}")
        return {"role": "system", "content": text_of(self._words(arrival.system_tokens), seed)}

    def user(self, turn: Turn) -> Message:
        """What the user says in one turn, with its picture."""
        text = self._blocks(turn) if turn.blocks else text_of(self._words(turn.prompt_tokens), self._text_seed(turn))
        if turn.picture is None:
            return {"role": "user", "content": text}
        url = pictures.data_url(*turn.picture, self._text_seed(turn))
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return {"role": "user", "content": parts}

    def tool_result(self, turn: Turn, call_id: str) -> Message:
        """What a tool answered."""
        text = text_of(self._words(turn.prompt_tokens), self._text_seed(turn))
        return {"role": "tool", "tool_call_id": call_id, "content": text}

    def body(self, arrival: Arrival, turn: Turn, messages: Sequence[Message]) -> Mapping[str, Any]:
        """The JSON body of POST /v1/chat/completions, or of /v1/embeddings for a batch."""
        model: MixModel = self._scenario.models[arrival.model]
        if turn.inputs:
            return {**model.extra_body, "model": arrival.model, "input": self._batch(turn)}
        body: dict[str, Any] = {
            **model.extra_body,
            "model": arrival.model,
            "messages": list(messages),
            "max_tokens": turn.output_tokens,
            "stream": turn.stream,
        }
        if turn.stream:
            body["stream_options"] = {"include_usage": True}
        # A tool call ends where its schema does.
        if self._scenario.exact_output and turn.tool is None:
            body["ignore_eos"] = True
        if arrival.tools:
            body["tools"] = tools.definitions(arrival.user_kind, arrival.tools)
            body["tool_choice"] = "none" if turn.tool is None else tools.choice(turn.tool)
        return body

    def _blocks(self, turn: Turn) -> str:
        # The trace's blocks are full but for the last, and equal names must give equal text from the first word on.
        left, parts = turn.prompt_tokens, []
        for name in turn.blocks:
            if left <= 0:
                break
            seed = self._seed(f"{self._scenario.seed}#{name}")
            parts.append(text_of(self._words(min(left, turn.block_tokens)), seed))
            left -= turn.block_tokens
        return " ".join(parts)

    def _batch(self, turn: Turn) -> list[str]:
        seed = self._text_seed(turn)
        return [text_of(self._words(tokens), seed + number) for number, tokens in enumerate(turn.inputs)]

    def _text_seed(self, turn: Turn) -> int:
        return turn.text_seed ^ (self._salt << 64)

    def _seed(self, name: str) -> int:
        return zlib.crc32(name.encode()) ^ (self._salt << 64)

    def _words(self, tokens: int) -> int:
        return max(1, round(tokens * self._scenario.words_per_token))


def reply_message(text: str, calls: Sequence[Mapping[str, Any]] = ()) -> Message:
    """The model's own reply as history for the next turn."""
    message: Message = {"role": "assistant", "content": text}
    return message | ({"tool_calls": list(calls)} if calls else {})
