"""What is held of each family, asked through the gateway as a caller asks, and compared with the ledger.

One function a check. The models speak noise, so each check is about form: lengths, positions, schemas, parts, sums.
May not happen in here: knowing a family by name.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hearing
import jsonschema
from family_cases import Case
from live_calls import CHAT, Answer, Caller
from live_fleet import LiveFleet, eventually, nano
from openai import BadRequestError, OpenAI

SHIP = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bea"]}, "berth": {"enum": ["north", "south"]}},  # noise ends no free text
    "required": ["name", "berth"], "additionalProperties": False,
}
ASK = "Which ships are in port?"
LONG = " ".join(f"Berth {n} is held for a ship that arrives on day {n * 7 % 30}." for n in range(12))
_TRIES = 24  # draws until a thought of noise ends where it should


@dataclass(frozen=True)
class Asked:
    """A model of the fleet, and who asks it."""

    fleet: LiveFleet
    caller: Caller
    model: str
    case: Case

    def chat(self, content: Any = ASK, max_tokens: int = 12, think: bool = False, **more: Any) -> dict[str, Any]:
        """The body of a chat request with an answer of exactly this length."""
        quiet = dict(self.case.aloud if think else self.case.quiet)
        if bias := quiet.get("logit_bias"):
            quiet["logit_bias"] = {str(self.token(text)): value for text, value in bias.items()}
        return {"model": self.model, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens,
                "temperature": 0, "ignore_eos": True, **quiet, **more}

    def call(self, body: dict[str, Any], path: str = CHAT) -> Answer:
        """The answer, which must be good."""
        answer = self.caller.call(path, body, timeout_s=120)
        assert answer.status == 200, f"{answer.status}: {answer.body[:400]!r}"
        return answer

    def message(self, **more: Any) -> dict[str, Any]:
        """The message of a chat's one choice."""
        found: dict[str, Any] = self.call(self.chat(**more)).json["choices"][0]["message"]
        return found

    def token(self, text: str) -> int:
        """The number of a text that is one token."""
        said = self.call({"model": self.model, "prompt": text, "add_special_tokens": False}, "/tokenize").json
        (number,) = said["tokens"]
        return int(number)


def chat(asked: Asked) -> None:
    """An answer has text, its model's name and whole usage."""
    said = asked.call(asked.chat()).json
    assert said["model"] == asked.model
    assert said["choices"][0]["message"]["content"].strip()
    used = said["usage"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"] > used["completion_tokens"] > 0


def stream(asked: Asked) -> None:
    """Streamed, the same answer comes in pieces, and the last chunk has usage and cost."""
    asked.call(asked.chat())  # its prompt is in the prefix cache from here on, for both
    whole = asked.message()["content"]
    body = asked.chat(stream=True, stream_options={"include_usage": True})
    lines = [line.removeprefix("data: ") for line in asked.call(body).body.decode().splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    texts = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert "".join(text or "" for text in texts) == whole
    assert sum(bool(text) for text in texts) > 1, "it came in one piece"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-1]["usage"]["cost"] > 0


def logprobs(asked: Asked) -> None:
    """Each token has its log probability and the likeliest ones."""
    found = asked.call(asked.chat(max_tokens=5, logprobs=True, top_logprobs=3)).json["choices"][0]["logprobs"]
    assert len(found["content"]) == 5
    for token in found["content"]:
        assert token["logprob"] <= 0 and len(token["top_logprobs"]) == 3
        assert token["logprob"] == max(t["logprob"] for t in token["top_logprobs"]), "greedy takes the likeliest"


def max_tokens(asked: Asked) -> None:
    """An answer ends at its limit and says so."""
    for limit in (1, 9):
        said = asked.call(asked.chat(max_tokens=limit)).json
        assert (said["usage"]["completion_tokens"], said["choices"][0]["finish_reason"]) == (limit, "length")


def stop(asked: Asked) -> None:
    """A stop text ends the answer before it."""
    whole = asked.message(max_tokens=24)["content"]
    text = whole[len(whole) // 2:][:4]
    choice = asked.call(asked.chat(max_tokens=24, stop=[text])).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == whole[: whole.index(text)]


def schema(asked: Asked) -> None:
    """An answer that must follow a JSON schema does."""
    wanted = {"type": "json_schema", "json_schema": {"name": "ship", "schema": SHIP, "strict": True}}
    body = asked.chat(max_tokens=400, response_format=wanted, ignore_eos=False)
    choice = asked.call(body).json["choices"][0]
    assert choice["finish_reason"] == "stop", choice
    jsonschema.validate(json.loads(choice["message"]["content"], strict=False), SHIP)


def tool(asked: Asked) -> None:
    """A tool that must be called is, with arguments of its schema, parsed out of the text."""
    ship = {"type": "function", "function": {"name": "berth_of", "description": "Where it lies.", "parameters": SHIP}}
    named = {"type": "function", "function": {"name": "berth_of"}}
    body = asked.chat(max_tokens=400, tools=[ship], tool_choice=named, ignore_eos=False)
    message = asked.call(body).json["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "berth_of"
    jsonschema.validate(json.loads(call["function"]["arguments"], strict=False), SHIP)


def reasoning(asked: Asked) -> None:
    """A thought and the answer after it come apart, in one piece and streamed.

    Noise does not end its thoughts by itself: the marker that does is made likely, and draws are made until one ends
    within the answer's length.
    """
    assert asked.case.thought_end is not None
    quiet = asked.message()
    assert quiet["content"] and not quiet.get("reasoning"), f"not asked to think: {quiet}"
    end = str(asked.token(asked.case.thought_end))
    for seed in range(_TRIES):
        body = asked.chat(max_tokens=60 if not asked.case.turns else 36, think=True, temperature=1, seed=seed,
                          logit_bias={end: asked.case.end_bias})
        message = asked.call(body).json["choices"][0]["message"]
        if not (message.get("reasoning") and message.get("content")):
            continue
        kinds = _streamed(asked, body)
        if not asked.case.turns or _apart(kinds):
            break
    else:
        raise AssertionError(f"no thought ended in {_TRIES} draws: {message}")
    assert asked.case.thought_end not in message["reasoning"]
    assert _apart(kinds), f"thoughts and answer are mixed: {kinds}"


def _streamed(asked: Asked, body: dict[str, Any]) -> list[str]:
    """What the pieces of a stream are, in the order in which they came: reasoning, content."""
    events = asked.call(body | {"stream": True}).body.decode().splitlines()
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in events if line.startswith("data: {")]
    return [kind for delta in deltas for kind in ("reasoning", "content") if delta.get(kind)]


def _apart(kinds: list[str]) -> bool:
    """Whether a thought comes first, and after it nothing but the answer."""
    thoughts = kinds.count("reasoning")
    return 0 < thoughts < len(kinds) and "content" not in kinds[:thoughts]


def cached(asked: Asked) -> None:
    """A prompt that has been read before is found in the prefix cache; answer and ledger say how much of it."""
    body = asked.chat(LONG, max_tokens=2)
    asked.call(body)
    again = asked.call(body)
    used = again.json["usage"]
    found = used["prompt_tokens_details"]["cached_tokens"]
    assert 32 <= found <= used["prompt_tokens"], used
    ((row,),) = eventually(lambda: asked.fleet.rows("SELECT cached_tokens FROM requests WHERE request_id = ?",
                                                    again.request_id), "the gateway's row")
    assert row == found


def cost(asked: Asked) -> None:
    """The cost that an answer names is what the ledger charges, to the nano-dollar, with the same tokens."""
    path, body = {"chat": (CHAT, asked.chat()), "embed": ("/v1/embeddings", {"model": asked.model, "input": ASK}),
                  "rerank": ("/v1/rerank", _documents(asked))}[asked.case.kind]
    answer = asked.call(body, path)
    used = answer.json["usage"]
    assert nano(used["cost"]) == _charged(asked, answer.request_id) > 0
    row = eventually(lambda: asked.fleet.rows(
        "SELECT code, outcome, model, prompt_tokens FROM requests WHERE request_id = ?", answer.request_id),
        "the gateway's row", 30)[0]
    assert row == (200, "finished", asked.model, used["prompt_tokens"])


def image(asked: Asked) -> None:
    """A picture takes part: it adds tokens, and another picture makes other next tokens likely."""
    def likely(color: tuple[int, int, int] | None) -> tuple[int, dict[str, float]]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": ASK}]
        if color:
            parts.insert(0, {"type": "image_url", "image_url": {"url": picture(color)}})
        said = asked.call(asked.chat(parts, max_tokens=1, logprobs=True, top_logprobs=5)).json
        top = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return said["usage"]["prompt_tokens"], {t["token"]: t["logprob"] for t in top}

    bare, red, blue, again = likely(None), likely((220, 30, 30)), likely((30, 60, 220)), likely((220, 30, 30))
    assert red[0] == blue[0] > bare[0], "the picture's tokens are in the prompt"
    assert red[1] != blue[1], "the answer does not depend on the picture"
    assert red == again


def picture(color: tuple[int, int, int], edge: int = 64) -> str:
    """A data URL of a PNG in one colour with a black diagonal."""
    rows = b"".join(b"\0" + b"".join(bytes((0, 0, 0) if x == y else color) for x in range(edge)) for y in range(edge))

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = (b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0))
           + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def embed(asked: Asked) -> None:
    """Vectors of the model's width and of length one; the same text has the same one, another text another."""
    body = {"model": asked.model, "input": [ASK, LONG, ASK]}
    said = asked.call(body, "/v1/embeddings").json
    first, other, again = (item["embedding"] for item in said["data"])
    assert len(first) == 64 and all(abs(math.hypot(*vector) - 1) < 1e-3 for vector in (first, other))
    assert max(abs(a - b) for a, b in zip(first, again, strict=True)) < 1e-2
    assert max(abs(a - b) for a, b in zip(first, other, strict=True)) > 0.05
    assert said["usage"]["prompt_tokens"] > 0


def rerank(asked: Asked) -> None:
    """Documents come in the order of their scores, which are those that scoring one by one gives."""
    body = _documents(asked)
    ranked = asked.call(body, "/v1/rerank").json["results"]
    scores = [r["relevance_score"] for r in ranked]
    assert scores == sorted(scores, reverse=True) and all(0 <= s <= 1 for s in scores)
    assert sorted(r["index"] for r in ranked) == [0, 1, 2]
    pairs = {"model": asked.model, "text_1": body["query"], "text_2": body["documents"]}
    single = {d["index"]: d["score"] for d in asked.call(pairs, "/v1/score").json["data"]}
    assert all(abs(single[r["index"]] - r["relevance_score"]) < 0.02 for r in ranked)


def hear(asked: Asked) -> None:
    """A sound becomes text, whole and streamed, and another sound another text; the cost named is the one charged."""
    client = OpenAI(base_url=asked.fleet.base_url, api_key=str(asked.caller.key), max_retries=0)

    def heard(data: bytes, **more: Any) -> Any:
        return client.audio.transcriptions.create(model=asked.model, file=("a.wav", data, "audio/wav"), language="en",
                                                  temperature=0, extra_body={"max_completion_tokens": 12}, **more)

    low = heard(hearing.sound())
    assert low.text and low.usage.seconds == 2
    assert heard(hearing.sound()).text == low.text != heard(hearing.sound(from_hz=3_000.0)).text
    pieces = [event.choices[0]["delta"].get("content", "") for event in heard(hearing.sound(), stream=True)]
    assert "".join(pieces) == low.text and len(pieces) > 1
    raw = client.audio.transcriptions.with_raw_response.create(
        model=asked.model, file=("a.wav", hearing.sound(), "audio/wav"), language="en")
    request_id, cost = raw.headers["x-flotilla-request-id"], json.loads(raw.text)["usage"]["cost"]
    assert nano(cost) == _charged(asked, request_id) > 0
    try:
        heard(b"no sound")
    except BadRequestError as error:
        assert "audio" in str(error), error
    else:
        raise AssertionError("what is no sound was heard")


def _charged(asked: Asked, request_id: str) -> int:
    """What the ledger charges the request with, nano-USD, once it is over."""
    def charges() -> list[tuple[Any, ...]]:
        return asked.fleet.rows("SELECT SUM(direct + waste + idle + cold_start) FROM charges WHERE request_id = ?"
                                " AND outcome != 'running' GROUP BY request_id", request_id)

    ((charged,),) = eventually(charges, "the request is charged", 30)
    return int(charged)


def _documents(asked: Asked) -> dict[str, Any]:
    return {"model": asked.model, "query": ASK, "documents": ["The Ann lies at berth two.", "Soup needs salt.", LONG]}


def run(asked: Asked, check: str) -> str:
    """Run a check. Returns why it failed, or an empty text."""
    try:
        _CHECKS[check](asked)
    except Exception as error:  # a check that breaks has failed, whatever broke
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        at = traceback.extract_tb(error.__traceback__)[-1].line  # an assert says no more than its line
        return f"{type(error).__name__}: {lines[0][:300] if lines else at}"
    return ""


_CHECKS: dict[str, Callable[[Asked], None]] = {
    "chat": chat, "stream": stream, "logprobs": logprobs, "max_tokens": max_tokens, "stop": stop, "schema": schema,
    "tool": tool, "reasoning": reasoning, "cached": cached, "cost": cost, "image": image, "embed": embed,
    "rerank": rerank, "hear": hear,
}
