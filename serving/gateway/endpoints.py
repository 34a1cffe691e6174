"""The endpoints of vLLM's own server that the gateway passes on, as one table.

`dialect` says how errors and streams look to this endpoint's clients; `model_in` where the model's name stands. A name
with `{id}` takes one path segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.errors import UnknownEndpoint, WrongMethod
from serving.gateway.errors import Dialect


@dataclass(frozen=True)
class Endpoint:
    """One endpoint. `usage_on_demand`: its streams carry usage only when asked, so the gateway asks."""

    name: str
    method: str
    path: str
    dialect: Dialect = "openai"
    model_in: Literal["json", "form", "id"] = "json"
    usage_on_demand: bool = False
    recorded: bool = True  # whether a request is a row of the ledger

    @property
    def ranked(self) -> bool:
        """Whether the engine takes a priority with its requests."""
        return self.name in _RANKED


_RANKED = frozenset({"chat_completions", "completions", "responses", "embeddings", "score", "rerank", "classify",
                     "pooling"})
_TABLE = (
    Endpoint("chat_completions", "POST", "/v1/chat/completions", usage_on_demand=True),
    Endpoint("completions", "POST", "/v1/completions", usage_on_demand=True),
    Endpoint("embeddings", "POST", "/v1/embeddings"),
    Endpoint("responses", "POST", "/v1/responses", "responses"),
    Endpoint("responses_get", "GET", "/v1/responses/{id}", "responses", "id", recorded=False),
    Endpoint("responses_cancel", "POST", "/v1/responses/{id}/cancel", "responses", "id", recorded=False),
    Endpoint("messages", "POST", "/v1/messages", "messages"),
    Endpoint("count_tokens", "POST", "/v1/messages/count_tokens", "messages"),
    Endpoint("score", "POST", "/v1/score"),
    Endpoint("score", "POST", "/score"),
    Endpoint("rerank", "POST", "/v1/rerank"),
    Endpoint("rerank", "POST", "/v2/rerank"),
    Endpoint("rerank", "POST", "/rerank"),
    Endpoint("classify", "POST", "/classify"),
    Endpoint("pooling", "POST", "/pooling"),
    Endpoint("tokenize", "POST", "/tokenize"),
    Endpoint("detokenize", "POST", "/detokenize"),
    Endpoint("transcriptions", "POST", "/v1/audio/transcriptions", model_in="form"),
    Endpoint("translations", "POST", "/v1/audio/translations", model_in="form"),
)
ENDPOINTS = _TABLE
_EXACT = {(e.method, e.path): e for e in _TABLE if "{id}" not in e.path}
_BY_ID = tuple(e for e in _TABLE if "{id}" in e.path)


def find(method: str, path: str) -> tuple[Endpoint, str]:
    """The endpoint at a path, and the id in it. Raises: UnknownEndpoint."""
    found = _EXACT.get((method, path))
    if found is not None:
        return found, ""
    if path.startswith("/v1/responses/"):
        for endpoint in _BY_ID:
            before, _, after = endpoint.path.partition("{id}")
            name = path[len(before) : len(path) - len(after)] if path.endswith(after) else ""
            if endpoint.method == method and name and "/" not in name:
                return endpoint, name
    if allowed := {e.method for e in _TABLE if e.path == path}:
        raise WrongMethod(method, path, allowed)
    raise UnknownEndpoint(method, path)
