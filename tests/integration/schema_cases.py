"""Requests made from the published document, right ones and wrong ones, cut down so that small engines answer soon.

Schemathesis makes them; what is changed here is said in `sent`. The same seed gives the same requests. May not happen
in here: sending, judging.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import NonInteractiveExampleWarning, Unsatisfiable
from schemathesis import GenerationMode

_ENGINES = ("chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "tokenize")  # what models here have
_SHARE = 4  # so many times as many cases for these
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
_TOKENS = 12
_COPIES = ("n", "best_of")  # vLLM takes up to 16,384 answers to one request, which here would be minutes
_MOST_COPIES = 3
_STRANGE = 12  # one in so many goes out without the key, or with whatever name of a model was made


@dataclass(frozen=True)
class Made:
    """One request. `arguments`: as `requests.Session.request` takes them; `short_s`: the deadline it asked for."""

    method: str
    path: str
    arguments: dict[str, Any]
    short_s: float | None


def cases(document: dict[str, Any], count: int, seed: int, url: str, key: str) -> Iterator[Made]:
    """`count` requests, spread over all operations."""
    schema = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in schema.get_all_operations()]
    left = count
    while left > 0:  # some operations have fewer cases than are asked for
        for case, plain in _spread(operations, left, seed):
            yield sent(case, document, url, key, plain)
            left -= 1
        seed += 1


def _spread(operations: list[Any], count: int, seed: int) -> Iterator[tuple[Any, bool]]:
    """Cases, and whether one is the first right one of what models here do: that is sent plain, and does its work."""
    weights = [_SHARE if any(e in o.path for e in _ENGINES) else 1 for o in operations]
    for operation, weight in zip(operations, weights, strict=True):
        able = weight == _SHARE
        share = max(3, round(count * weight / sum(weights)))
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for mode, part in zip(modes, (share - share // 3, share // 3), strict=True):
            for at, case in enumerate(_generated(operation, mode, part, seed)):
                yield case, able and mode == GenerationMode.POSITIVE and at == 0


def _generated(operation: Any, mode: GenerationMode, count: int, seed: int) -> list[Any]:
    found: list[Any] = []

    @seeded(seed)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        found.append(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        try:
            collect()
        except Unsatisfiable:
            pass  # an operation without parameters cannot be asked wrongly
    return found


def sent(case: Any, document: dict[str, Any], url: str, key: str, plain: bool = False) -> Made:
    """The case as it goes out: with a good key and a model that is there, mostly; asking for few tokens and answers.

    Of every second right body only the required members and a few others stay: with all of them at once, some value
    that the engine refuses always stands before those it would have to work with. A `plain` one has nothing else, and
    its key and model are good.
    """
    chance = random.Random(repr((case.path, case.body)))
    if isinstance(case.body, dict):
        case.body = _body(case, document, chance, plain)
    arguments = case.as_transport_kwargs(base_url=url)
    headers = {k: v for k, v in arguments["headers"].items() if not k.lower().startswith("x-schemathesis")}
    if plain:
        headers = {k: v for k, v in headers.items() if k.lower() == "content-type"}
    if plain or chance.randrange(_STRANGE):
        headers = {k: v for k, v in headers.items() if k.lower() not in ("authorization", "x-api-key")}
        headers["Authorization"] = f"Bearer {key}"
    arguments["headers"] = headers
    return Made(case.method.upper(), case.operation.path, arguments, _deadline(headers))


def _body(case: Any, document: dict[str, Any], chance: random.Random, plain: bool) -> dict[str, Any]:
    body: dict[str, Any] = dict(case.body)
    right = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    if plain or right and chance.random() < 0.5:
        known = [k for k in body if k in _members(case, document)]
        others = [] if plain else chance.sample(known, min(4, len(known)))
        kept = {"model", "messages", "input", "prompt", *others}
        body = {k: v for k, v in body.items() if k in kept}
        if "messages" in known:
            body["messages"] = [{"role": "user", "content": str(chance.random())}]
        for name in {"input", "prompt"} & _members(case, document):
            body[name] = str(chance.random())
    if plain or chance.randrange(_STRANGE) and isinstance(body.get("model"), str):
        body["model"] = chance.choice(("qwen", "llama", "qwen3"))
    for name in _LENGTHS:
        if isinstance(body.get(name), int) and body[name] > _TOKENS:
            body[name] = _TOKENS
    for name in _COPIES:
        if isinstance(body.get(name), int) and body[name] > _MOST_COPIES:
            body[name] = _MOST_COPIES
    if not any(body.get(name) for name in _LENGTHS):
        if "responses" in case.path:
            body["max_output_tokens"] = _TOKENS
        elif "completions" in case.path or case.path.endswith("/messages"):
            body["max_tokens"] = _TOKENS
    return body


def _members(case: Any, document: dict[str, Any]) -> set[str]:
    """Names of the members that the document knows for this body."""
    (content,) = document["paths"][case.operation.path][case.method.lower()]["requestBody"]["content"].values()
    schemas, found = document["components"]["schemas"], set[str]()
    for one in content["schema"].get("anyOf", [content["schema"]]):
        found |= set(schemas[one["$ref"].rpartition("/")[2]].get("properties", {}))
    return found


def _deadline(headers: dict[str, Any]) -> float | None:
    try:
        return float(next(v for k, v in headers.items() if k.lower() == "x-flotilla-timeout-s"))
    except (StopIteration, ValueError):
        return None


def shown(made: Made) -> str:
    """The request as text, for a report."""
    kept = {k: v for k, v in made.arguments.items() if v and k not in ("cookies",)}
    return f"{made.method} {made.path}\n" + json.dumps(kept, default=repr, indent=1)[:4000]
