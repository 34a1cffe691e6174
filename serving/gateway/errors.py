"""The one table from Flotilla's errors to HTTP answers, in OpenAI's form or in Anthropic's."""

from __future__ import annotations

import json
from typing import Literal

from serving import errors
from serving.fleet import verdicts

PAYMENT_REQUIRED = 402
Dialect = Literal["openai", "responses", "messages"]

# class: (status, OpenAI's error type, code)
TABLE: dict[type[errors.FlotillaError], tuple[int, str, str]] = {
    errors.MalformedRequest: (400, "invalid_request_error", "malformed_request"),
    errors.MediaRefused: (400, "invalid_request_error", "media_refused"),
    errors.MediaUnavailable: (400, "invalid_request_error", "media_unavailable"),
    errors.PresetRefuses: (400, "invalid_request_error", "preset_refuses"),
    errors.InvalidKey: (401, "invalid_request_error", "invalid_api_key"),
    errors.BudgetExhausted: (PAYMENT_REQUIRED, "insufficient_quota", "budget_exhausted"),
    errors.ScopeMissing: (403, "invalid_request_error", "scope_missing"),
    errors.ModelNotAllowed: (403, "invalid_request_error", "model_not_allowed"),
    errors.UnknownModel: (404, "invalid_request_error", "model_not_found"),
    errors.UnsupportedEndpoint: (404, "invalid_request_error", "unsupported_endpoint"),
    errors.UnknownResponse: (404, "invalid_request_error", "response_not_found"),
    errors.UnknownEndpoint: (404, "invalid_request_error", "unknown_endpoint"),
    errors.WrongMethod: (405, "invalid_request_error", "method_not_allowed"),
    errors.BodyTimeout: (408, "invalid_request_error", "body_timeout"),
    errors.BodyTooLarge: (413, "invalid_request_error", "body_too_large"),
    errors.TooManyWaiting: (429, "rate_limit_error", "too_many_waiting"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.RequestTooLarge: (429, "rate_limit_error", "request_too_large"),
    errors.HeadersTooLarge: (431, "invalid_request_error", "headers_too_large"),
    errors.RequestError: (400, "invalid_request_error", "bad_request"),
    errors.KeysUnavailable: (503, "server_error", "keys_unavailable"),
    errors.QuotasUnavailable: (503, "server_error", "quotas_unavailable"),
    errors.NoReplica: (503, "server_error", "no_replica"),
    errors.ModelFailed: (503, "server_error", "model_failed"),
    errors.Overloaded: (503, "server_error", "overloaded"),
    errors.LedgerFull: (503, "server_error", "ledger_full"),
    errors.Draining: (503, "server_error", "draining"),
    errors.ReplicaFailed: (502, "server_error", "replica_failed"),
    errors.DeadlineExceeded: (504, "server_error", "deadline_exceeded"),
    errors.ServiceError: (503, "server_error", "service_error"),
    errors.FlotillaError: (500, "server_error", "internal_error"),
}
# Anthropic's error types by status; its SDK raises by status and shows the message
_MESSAGES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
             403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
             503: "overloaded_error", 504: "timeout_error"}


def status(error: errors.FlotillaError) -> int:
    """The HTTP status of an error: that of its nearest class in the table."""
    return _row(error)[0]


def body(error: errors.FlotillaError, dialect: Dialect = "openai") -> bytes:
    """The JSON body of an error, as the endpoint's clients expect it."""
    code, kind, name = _row(error)
    if dialect == "messages":
        inner = {"type": _MESSAGES.get(code, "api_error"), "message": str(error)}
        return json.dumps({"type": "error", "error": inner}).encode()
    return json.dumps({"error": {"message": str(error), "type": kind, "param": None, "code": name}}).encode()


def as_anthropic(body: bytes, code: int) -> bytes:
    """An engine's error in Anthropic's form: vLLM says in OpenAI's what its request validation refuses."""
    try:
        said = json.loads(body)
        if said.get("type") == "error":
            return body
        message = said["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return body
    inner = {"type": _MESSAGES.get(code, "api_error"), "message": message}
    return json.dumps({"type": "error", "error": inner}).encode()


def headers(error: errors.FlotillaError) -> list[tuple[bytes, bytes]]:
    """Further headers of an error's answer."""
    if isinstance(error, errors.RateLimited):
        return [(b"retry-after", b"%d" % error.retry_after_s), *verdicts.headers_of(error)]
    if isinstance(error, errors.NoReplica | errors.Overloaded | errors.TooManyWaiting | errors.LedgerFull
                  | errors.QuotasUnavailable):
        return [(b"retry-after", b"%d" % error.retry_after_s)]
    if isinstance(error, errors.RequestTooLarge):
        return [(b"x-should-retry", b"false")]  # OpenAI's and Anthropic's clients heed it
    if isinstance(error, errors.InvalidKey):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, errors.WrongMethod):
        return [(b"allow", ", ".join(error.allowed).encode())]
    return []


def _row(error: errors.FlotillaError) -> tuple[int, str, str]:
    return next(TABLE[c] for c in type(error).__mro__ if c in TABLE)
