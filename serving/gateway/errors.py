"""The one table from Flotilla's errors to HTTP answers in OpenAI's form."""

from __future__ import annotations

import json

from serving import errors

# class: (status, OpenAI's error type, code)
TABLE: dict[type[errors.FlotillaError], tuple[int, str, str]] = {
    errors.MalformedRequest: (400, "invalid_request_error", "malformed_request"),
    errors.InvalidKey: (401, "invalid_request_error", "invalid_api_key"),
    errors.UnknownModel: (404, "invalid_request_error", "model_not_found"),
    errors.UnknownEndpoint: (404, "invalid_request_error", "unknown_endpoint"),
    errors.BodyTooLarge: (413, "invalid_request_error", "body_too_large"),
    errors.RequestError: (400, "invalid_request_error", "bad_request"),
    errors.KeysUnavailable: (503, "server_error", "keys_unavailable"),
    errors.NoReplica: (503, "server_error", "no_replica"),
    errors.ReplicaFailed: (502, "server_error", "replica_failed"),
    errors.UpstreamTimeout: (504, "server_error", "timeout"),
    errors.ServiceError: (503, "server_error", "service_error"),
    errors.FlotillaError: (500, "server_error", "internal_error"),
}


def status(error: errors.FlotillaError) -> int:
    """The HTTP status of an error: that of its nearest class in the table."""
    return _row(error)[0]


def body(error: errors.FlotillaError) -> bytes:
    """The JSON body of an error, as OpenAI's clients expect it."""
    _, kind, code = _row(error)
    return json.dumps({"error": {"message": str(error), "type": kind, "param": None, "code": code}}).encode()


def headers(error: errors.FlotillaError) -> list[tuple[bytes, bytes]]:
    """Further headers of an error's answer."""
    if isinstance(error, errors.NoReplica):
        return [(b"retry-after", b"%d" % error.retry_after_s)]
    if isinstance(error, errors.InvalidKey):
        return [(b"www-authenticate", b"Bearer")]
    return []


def _row(error: errors.FlotillaError) -> tuple[int, str, str]:
    return next(TABLE[c] for c in type(error).__mro__ if c in TABLE)
