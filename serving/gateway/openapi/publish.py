"""Turns vLLM's OpenAPI document into the gateway's: its endpoints, keys, headers and errors instead of the engine's.

Errors are described from the exception tree and its table, endpoints from theirs, so that the document cannot say
something else than the code. Pure: JSON values in, JSON values out. May not happen in here: files, vLLM.
"""

from __future__ import annotations

import inspect
import json
from copy import deepcopy
from typing import Any

from serving.errors import HeadersTooLarge
from serving.gateway.endpoints import ENDPOINTS, Endpoint
from serving.gateway.errors import TABLE, Dialect
from serving.gateway.openapi import own
from serving.gateway.openapi.schemas import REF, merge_equal, prune, tidy

_STREAMING = {"chat_completions", "completions", "responses", "responses_get", "messages", "transcriptions",
              "translations"}
_BYTES = {"embeddings", "pooling"}  # with encoding_format "bytes"
_COSTLESS = {"tokenize", "detokenize", "count_tokens", "translations"}  # their answers tell no usage
_USAGE = ("UsageInfo", "RerankUsage", "ResponseUsage", "AnthropicUsage", "TranscriptionUsageAudio")
_ENGINE_SAYS = {400: "The engine refuses the request; where there is a code, it is the status.",
                404: "The model has no such endpoint; where there is a code, it is the status."}
_NOT_PUBLISHED = (405, 500)  # a method that is not here belongs to no operation; an internal error is a defect
_FOR_BODIES = (408, 413)


def publish(engine: dict[str, Any]) -> dict[str, Any]:
    """The gateway's document. `engine`: vLLM's, as FastAPI makes it, with all endpoints of the gateway's table.

    Raises: LookupError naming an endpoint that the engine's document lacks.
    """
    schemas = tidy(engine["components"])["schemas"] | deepcopy(own.SCHEMAS)
    for name in _USAGE:
        schemas[name]["properties"]["cost"] = own.COST
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{id}", "{response_id}")
        try:
            found = tidy(engine["paths"][path][endpoint.method.lower()])
        except KeyError as error:
            raise LookupError(f"the engine's document has no {endpoint.method} {path}") from error
        _name_the_model(found, schemas)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, found)
    document = {
        "openapi": engine["openapi"],
        "info": own.INFO,
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": paths | own.paths(_refused("openai", (401, 403, 404, 431, 503))),
        "components": {"securitySchemes": own.SECURITY, "parameters": own.PARAMETERS, "headers": own.HEADERS,
                       "responses": _errors("messages") | _errors("openai"), "schemas": schemas},
    }
    return prune(merge_equal(document))


def written(document: dict[str, Any]) -> bytes:
    """The document as JSON with one line for each path and each component, so that changes can be read."""

    def block(members: dict[str, Any], depth: int) -> str:
        lines = [f"{json.dumps(k)}:{block(v, depth - 1) if depth else json.dumps(v, separators=(',', ':'))}"
                 for k, v in members.items()]
        return "{\n" + ",\n".join(lines) + "\n}"

    parts = [f"{json.dumps(k)}:" + (block(v, 1 if k == "components" else 0) if k in ("paths", "components")
                                    else json.dumps(v, separators=(",", ":"))) for k, v in document.items()]
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _operation(endpoint: Endpoint, path: str, engine: dict[str, Any]) -> dict[str, Any]:
    name = f"{endpoint.method} {path}".lower().translate(str.maketrans(" /", "__", "{}")).replace("__", "_")
    made: dict[str, Any] = {"operationId": name, "summary": engine["summary"]}
    made["parameters"] = engine.get("parameters", []) + [{"$ref": f"#/components/parameters/{p}"}
                                                         for p in own.PARAMETERS]
    if "requestBody" in engine:
        (content,) = engine["requestBody"]["content"].values()
        kind = "multipart/form-data" if endpoint.model_in == "form" else "application/json"
        made["requestBody"] = {"required": True, "content": {kind: content}}
    content = {"application/json": engine["responses"]["200"]["content"]["application/json"]}
    if endpoint.name in _STREAMING:
        content["text/event-stream"] = {"schema": {"type": "string", "description": own.STREAM}}
    if endpoint.name in _BYTES:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    headers = own.ANSWER_HEADERS if endpoint.name in _COSTLESS else own.COSTED_HEADERS
    answered = {"description": "The engine's answer.", "headers": headers, "content": content}
    codes = [c for c in _codes() if "requestBody" in engine or c not in _FOR_BODIES]
    made["responses"] = {"200": answered} | _refused(endpoint.dialect, codes)
    return made


def _name_the_model(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """vLLM does without a model's name, the gateway cannot."""
    if "requestBody" not in operation:
        return
    (content,) = operation["requestBody"]["content"].values()
    for alternative in content["schema"].get("anyOf", [content["schema"]]):
        schema = schemas[alternative["$ref"].removeprefix(REF)]
        schema["properties"]["model"] = own.MODEL
        schema["required"] = sorted({*schema.get("required", ()), "model"})


def _codes() -> list[int]:
    return sorted({status for status, _, _ in TABLE.values()} - set(_NOT_PUBLISHED))


def _refused(dialect: Dialect, codes: Any) -> dict[str, Any]:
    return {str(c): {"$ref": f"#/components/responses/{_error_name(dialect, c)}"} for c in codes}


def _error_name(dialect: Dialect, code: int) -> str:
    # a connection whose headers are too large is refused before anyone knows its endpoint
    anthropic = dialect == "messages" and code != TABLE[HeadersTooLarge][0]
    return f"{'Anthropic' if anthropic else 'Error'}{code}"


def _errors(dialect: Dialect) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for code in _codes():
        kinds = [(name, inspect.getdoc(c) or "") for c, (status, _, name) in TABLE.items() if status == code]
        named = dialect != "messages"  # Anthropic's form has no place for a code
        lines = [f"- {f'`{name}`: ' if named else ''}{text.splitlines()[0]}" for name, text in kinds]
        lines += [f"- {_ENGINE_SAYS[code]}"] if code in _ENGINE_SAYS else []
        schema = {"$ref": REF + ("AnthropicError" if dialect == "messages" else "Error")}
        found[_error_name(dialect, code)] = {
            "description": "\n".join(lines), "headers": own.ERROR_HEADERS.get(code, own.ANSWER_HEADERS),
            "content": {"application/json": {"schema": schema}},
        }
    return found
