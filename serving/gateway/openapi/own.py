"""What the published document says that is the gateway's own: keys, headers, errors' form, the list of models, health.

Plain values. May not happen in here: anything that can be derived from the code or from vLLM's document.
"""

from __future__ import annotations

from typing import Any

_ID = {"type": "string", "maxLength": 128, "pattern": "^[!-~]{1,128}$"}

INFO = {
    "title": "Flotilla",
    "version": "1",
    "description": "Open models behind one API. Requests and answers are vLLM's own; an answer's usage has its cost, "
                   "fully loaded.",
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this fleet: `flt_…`."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key",
                  "description": "The same key, as Anthropic's clients send it."},
}
PARAMETERS: dict[str, Any] = {
    "x-request-id": {"name": "x-request-id", "in": "header", "schema": _ID,
                     "description": "Your own id of the request; comes back in the answer and stands in the ledger."},
    "x-flotilla-session": {"name": "x-flotilla-session", "in": "header", "schema": {"type": "string", "maxLength": 256},
                           "description": "Requests of one session go to the same replica and the same variant of a "
                                          "route while that is possible."},
    "x-flotilla-timeout-s": {"name": "x-flotilla-timeout-s", "in": "header",
                             "schema": {"type": "number", "exclusiveMinimum": 0},
                             "description": "Seconds within which the answer must be whole; the fleet's limit stays."},
}
HEADERS: dict[str, Any] = {
    "x-flotilla-request-id": {"schema": {"type": "string"}, "description": "The id of the request in the ledger."},
    "x-flotilla-model": {"schema": {"type": "string"}, "description": "The model, with its adapter, that answered."},
    "x-flotilla-cold-start-s": {"schema": {"type": "string", "pattern": r"^\d+\.\d$"},
                                "description": "Seconds that the request waited for a model at zero to start."},
    "x-flotilla-preset": {"schema": {"type": "string"}, "description": "The preset that was used, as name@version."},
    "x-flotilla-cost-usd": {"schema": {"type": "string", "pattern": r"^\d+\.\d{9}$"},
                            "description": "The cost that the answer's usage names, USD, in the same digits. Streams "
                                           "have it in their usage only."},
    "x-request-id": {"schema": {"type": "string"}, "description": "Your own id, or the ledger's."},
    "retry-after": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds after which to try again."},
    "x-flotilla-budget": {"schema": {"type": "string"},
                          "description": "There once a budget's soft mark is reached: how much of it is used."},
    "x-should-retry": {"schema": {"const": "false"}, "description": "To wait would not help."},
    "www-authenticate": {"schema": {"type": "string"}, "description": "`Bearer`."},
}

_LIMITED = ("requests", "tokens", "prompt-tokens", "completion-tokens")
for _name in _LIMITED:
    HEADERS |= {
        f"x-ratelimit-limit-{_name}": {"schema": {"type": "integer"},
                                       "description": f"Of your limits of {_name} a minute the one nearest its end."},
        f"x-ratelimit-remaining-{_name}": {"schema": {"type": "integer"}, "description": "What is left of it."},
        f"x-ratelimit-reset-{_name}": {"schema": {"type": "string", "pattern": r"^\d+s$"},
                                       "description": "When nothing of it will be used, seconds from now."}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


LIMIT_HEADERS = _headers(*(f"x-ratelimit-{what}-{name}" for name in _LIMITED
                           for what in ("limit", "remaining", "reset")))
ANSWER_HEADERS = _headers("x-flotilla-request-id", "x-flotilla-model", "x-flotilla-cold-start-s", "x-flotilla-preset",
                         "x-request-id")
COSTED_HEADERS = ANSWER_HEADERS | _headers("x-flotilla-cost-usd", "x-flotilla-budget") | LIMIT_HEADERS
ERROR_HEADERS = {
    401: _headers("x-flotilla-request-id", "x-request-id", "www-authenticate"),
    402: _headers("x-flotilla-request-id", "x-request-id"),
    429: _headers("x-flotilla-request-id", "x-request-id", "retry-after", "x-should-retry") | LIMIT_HEADERS,
    431: {},
    503: _headers("x-flotilla-request-id", "x-request-id", "retry-after"),
}
STREAM = ("With `stream`: server-sent events. A stream that breaks ends with an error event and without its usual last "
          "one. Chat and completion streams tell usage and cost where `stream_options.include_usage` asks for them.")
COST = {"type": "number", "description": "USD that this answer cost, fully loaded: its work and its part of idle time "
                                         "and cold starts by the fleet's policy."}
MODEL = {"type": "string", "description": "A model, alias, route, preset or `model:adapter`; `GET /v1/models` lists "
                                          "them."}
SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object", "required": ["error"],
        "properties": {"error": {
            "type": "object", "required": ["message", "type", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"},
                           "param": {"type": ["string", "null"]}, "code": {"type": ["string", "integer"]}},
        }},
    },
    "AnthropicError": {
        "type": "object", "required": ["type", "error"],
        "properties": {"type": {"const": "error"}, "error": {
            "type": "object", "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        }},
    },
    "Model": {
        "type": "object", "required": ["id", "object", "created", "owned_by", "max_model_len", "aliases", "state"],
        "properties": {
            "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
            "owned_by": {"const": "flotilla"}, "max_model_len": {"type": "integer"},
            "aliases": {"type": "array", "items": {"type": "string"}},
            "state": {"enum": ["ready", "starting", "scaled_to_zero", "unavailable", "failed"]},
            "architecture": {"type": "string"}, "root": {"type": "string"},
            "licence": {
                "type": "object", "description": "Conditions of use of the weights, where they are known.",
                "required": ["name", "gated", "conditions"],
                "properties": {"name": {"type": "string"}, "conditions": {"type": "string"}, "gated": {
                    "type": "boolean", "description": "Whether the hub gives the weights out after consent only."}},
            },
            "fallback": {"type": "array", "items": {"type": "string"}, "description": "Models asked when it is full."},
            "parent": {"type": "string", "description": "The model of an adapter, or what a preset asks."},
            "description": {"type": "string", "description": "What an adapter or a preset is for."},
            "preset": {
                "type": "object", "description": "What a preset puts into requests.",
                "required": ["version", "digest", "versions", "system", "sampling", "tools", "caller"],
                "properties": {
                    "version": {"type": "string"}, "digest": {"type": "string"},
                    "versions": {"type": "array", "items": {"type": "string"},
                                 "description": "Asked for as name@version."},
                    "system": {"type": "boolean", "description": "Whether it has a system prompt."},
                    "sampling": {"type": "object"}, "tools": {"type": "array", "items": {"type": "string"}},
                    "caller": {"type": "object", "description": "What becomes of the same fields of the caller's."},
                },
            },
            "variants": {"type": "object", "additionalProperties": {"type": "integer"},
                         "description": "The models of a route by weight."},
        },
    },
    "ModelList": {
        "type": "object", "required": ["object", "data"],
        "properties": {"object": {"const": "list"},
                       "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
    },
    "Usage": {
        "type": "object", "required": ["object", "tenant", "data"],
        "properties": {"object": {"const": "usage"}, "tenant": {"type": "string"}, "data": {
            "type": "array", "items": {
                "type": "object", "required": ["requests", "cost_usd", "cost_nanousd"],
                "properties": {
                    "key": {"type": "string"}, "model": {"type": "string"}, "day": {"type": "string"},
                    **{name: {"type": "integer"} for name in (
                        "requests", "errors", "aborted", "prompt_tokens", "cached_tokens", "completion_tokens",
                        "cost_nanousd")},
                    "cost_usd": {"type": "number", "description": "Fully loaded, as the ledger has it."}}}}},
    },
    "Ready": {
        "type": "object", "required": ["ready", "models"],
        "properties": {"ready": {"type": "boolean"},
                       "models": {"type": "object", "additionalProperties": {"type": "boolean"}}},
    },
}


def paths(refused: dict[str, Any]) -> dict[str, Any]:
    """The endpoints that are the gateway's own. `refused`: answers that a request for the list of models may get."""

    def get(name: str, summary: str, schema: dict[str, Any], more: dict[str, Any], **members: Any) -> dict[str, Any]:
        answer = {"description": summary, "content": {"application/json": {"schema": schema}}}
        return {"get": {"operationId": name, "summary": summary, **members, "responses": {"200": answer} | more}}

    ready = {"$ref": "#/components/schemas/Ready"}
    not_ready = {"503": {"description": "A model has no replica, or this gateway stops.",
                         "content": {"application/json": {"schema": ready}}}}
    one = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    since = {"in": "query", "schema": {"type": "string"}}
    asked = [{"name": "by", "in": "query", "schema": {"type": "string"},
              "description": "What a row is for: any of key, model, adapter, preset, day, with commas. "
                             "Left out: model,day."},
             {"name": "since", "description": "30m, 12h, 7d ago, or a moment (UTC): 2026-11-01.", **since},
             {"name": "until", "description": "Until when, not included; like since.", **since}]
    of_usage = {code: answer for code, answer in refused.items() if code != "404"} | {
        "400": {"$ref": "#/components/responses/Error400"}}
    of_list = {code: answer for code, answer in refused.items() if code not in ("403", "404")}
    free: dict[str, Any] = {"security": []}
    return {
        "/v1/models": get("get_v1_models", "Models, routes and adapters that you may use",
                          {"$ref": "#/components/schemas/ModelList"}, of_list),
        "/v1/models/{model}": get("get_v1_models_model", "One of them, by name or alias",
                                  {"$ref": "#/components/schemas/Model"}, refused, parameters=[one]),
        "/v1/usage": get("get_v1_usage", "What your tenant has used, and what it cost",
                         {"$ref": "#/components/schemas/Usage"}, of_usage, parameters=asked),
        "/healthz": get("get_healthz", "The gateway lives", {"type": "object"}, {}, **free),
        "/health": get("get_health", "The same, at the path of vLLM's own server", {"type": "object"}, {}, **free),
        "/readyz": get("get_readyz", "Every model that came up can answer", ready, not_ready, **free),
        "/openapi.json": get("get_openapi", "This document", {"type": "object"}, {}, **free),
    }
