"""The OpenAPI document of vLLM's own server, for the endpoints whose routers stand in one table.

vLLM publishes only the endpoints that the model it serves has, and leaves its answers undescribed. Here all routers are
put into one application, with the classes that vLLM answers with. No engine is started. May not happen in here:
anything that the gateway adds or changes.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

# package of vLLM's entrypoints: the class of a JSON answer by path
_ANSWERS = {
    "openai.chat_completion": {"/v1/chat/completions": "ChatCompletionResponse"},
    "openai.completion": {"/v1/completions": "CompletionResponse"},
    "openai.responses": {"/v1/responses": "", "/v1/responses/{response_id}": "",
                         "/v1/responses/{response_id}/cancel": ""},
    "anthropic": {"/v1/messages": "AnthropicMessagesResponse",
                  "/v1/messages/count_tokens": "AnthropicCountTokensResponse"},
    "serve.tokenize": {"/tokenize": "TokenizeResponse", "/detokenize": "DetokenizeResponse"},
    "pooling.embed": {"/v1/embeddings": "EmbeddingResponse"},
    "pooling.pooling": {"/pooling": "PoolingResponse"},
    "pooling.classify": {"/classify": "ClassificationResponse"},
    "pooling.scoring": {"/score": "ScoreResponse", "/v1/score": "ScoreResponse", "/rerank": "RerankResponse",
                        "/v1/rerank": "RerankResponse", "/v2/rerank": "RerankResponse"},
    "speech_to_text.transcription": {"/v1/audio/transcriptions": "TranscriptionResponse"},
    "speech_to_text.translation": {"/v1/audio/translations": "TranslationResponse"},
}


class ResponseUsage(BaseModel):
    """What a response used."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    model_config = ConfigDict(extra="allow")


class Response(BaseModel):
    """A response object. Its output items are OpenAI's; all of their kinds would be half of the document."""

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    usage: ResponseUsage | None = None
    model_config = ConfigDict(extra="allow")


def engine_document() -> dict[str, Any]:
    """vLLM's document, as FastAPI makes it. Raises: LookupError when vLLM has no such endpoint any more."""
    app = FastAPI()
    for package, answers in _ANSWERS.items():
        found = {r.path: r for r in _module(package, "api_router").router.routes if isinstance(r, APIRoute)}
        if gone := answers.keys() - found.keys():
            raise LookupError(f"vLLM's {package} has no endpoint {sorted(gone)[0]}; it has {', '.join(sorted(found))}")
        for path, name in answers.items():
            model = getattr(_module(package, "protocol"), name) if name else Response
            app.add_api_route(path, found[path].endpoint, methods=list(found[path].methods), response_model=model,
                              responses=found[path].responses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # defaults that JSON cannot say
        return app.openapi()


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"vllm.entrypoints.{package}.{name}")
