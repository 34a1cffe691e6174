"""Every error has its place in the one table."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from serving import errors
from serving.gateway import errors as table

STATUS = {
    errors.InvalidKey: 401,
    errors.UnknownModel: 404,
    errors.UnknownEndpoint: 404,
    errors.MalformedRequest: 400,
    errors.BodyTooLarge: 413,
    errors.KeysUnavailable: 503,
    errors.NoReplica: 503,
    errors.ModelFailed: 503,
    errors.ReplicaFailed: 502,
    errors.DeadlineExceeded: 504,
    errors.Draining: 503,
    errors.LedgerFull: 503,
    errors.Overloaded: 503,
    errors.TooManyWaiting: 429,
    errors.ModelNotAllowed: 403,
    errors.UnknownResponse: 404,
    errors.UnsupportedEndpoint: 404,
    errors.WrongMethod: 405,
    errors.BodyTimeout: 408,
    errors.HeadersTooLarge: 431,
    errors.MediaRefused: 400,
    errors.MediaUnavailable: 400,
    errors.PresetRefuses: 400,
    errors.ScopeMissing: 403,
    errors.RateLimited: 429,
    errors.RequestTooLarge: 429,
    errors.BudgetExhausted: 402,
    errors.QuotasUnavailable: 503,
}
ARGUMENTS = {
    errors.UnknownModel: ("qwen4", ["qwen"]),
    errors.UnknownEndpoint: ("GET", "/x"),
    errors.BodyTooLarge: (10,),
    errors.NoReplica: ("qwen", 7),
    errors.ModelFailed: ("qwen",),
    errors.Overloaded: ("qwen", 7),
    errors.TooManyWaiting: ("qwen", 7),
    errors.LedgerFull: (7,),
    errors.ModelNotAllowed: ("qwen", "demo", ["llama"]),
    errors.UnsupportedEndpoint: ("qwen", "/v1/embeddings"),
    errors.WrongMethod: ("GET", "/x", ["POST"]),
    errors.BodyTimeout: (3.0,),
    errors.DeadlineExceeded: (3.0,),
    errors.MediaUnavailable: ("pictures.example", "HTTP 404"),
    errors.ScopeMissing: ("admin", ["usage"]),
    errors.RateLimited: ("the limit", "", 7, "requests", 60, 60),
    errors.RequestTooLarge: ("the limit", ": it asks for 9", "ask for fewer"),
    errors.QuotasUnavailable: (7,),
}


def below(kind: type[errors.FlotillaError]) -> Iterator[type[errors.FlotillaError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def made(kind: type[errors.FlotillaError]) -> errors.FlotillaError:
    return kind(*ARGUMENTS.get(kind, ("what happened",)))


ANSWERED = [*below(errors.RequestError), *below(errors.ServiceError)]


@pytest.mark.parametrize("kind", ANSWERED)
def test_every_error_of_a_request_has_a_row_and_a_status(kind: type[errors.FlotillaError]) -> None:
    assert kind in table.TABLE, f"{kind.__name__} has no row of its own"
    assert kind in STATUS, f"{kind.__name__} is new: say here which status it must have"
    assert table.status(made(kind)) == STATUS[kind]


def test_request_errors_are_the_callers_and_service_errors_ours() -> None:
    assert all(400 <= STATUS[k] < 500 for k in below(errors.RequestError))
    assert all(500 <= STATUS[k] < 600 for k in below(errors.ServiceError))


def test_no_two_rows_share_a_code() -> None:
    codes = [code for _, _, code in table.TABLE.values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", ANSWERED)
def test_the_body_is_as_openais_clients_expect_it(kind: type[errors.FlotillaError]) -> None:
    error = made(kind)
    found = json.loads(table.body(error))["error"]
    assert found["message"] == str(error)
    of_callers = {429: "rate_limit_error", 402: "insufficient_quota"}.get(STATUS[kind], "invalid_request_error")
    assert found["type"] == ("server_error" if STATUS[kind] >= 500 else of_callers)


def test_anthropics_clients_get_their_own_form() -> None:
    found = json.loads(table.body(errors.TooManyWaiting("qwen", 7), "messages"))
    assert found == {"type": "error", "error": {"type": "rate_limit_error", "message": found["error"]["message"]}}


def test_errors_of_other_rooms_are_internal() -> None:
    assert table.status(errors.LedgerError("x")) == 500
    assert table.status(errors.FlotillaError("x")) == 500


def test_a_new_class_takes_its_parents_row() -> None:
    class Later(errors.UnknownModel):
        """Not in the table."""

    assert table.status(Later("x", [])) == 404


def test_further_headers() -> None:
    assert table.headers(errors.NoReplica("qwen", 7)) == [(b"retry-after", b"7")]
    assert table.headers(errors.LedgerFull(7)) == [(b"retry-after", b"7")]
    assert table.headers(errors.InvalidKey("x")) == [(b"www-authenticate", b"Bearer")]
    assert table.headers(errors.MalformedRequest("x")) == []


OPENAIS = json.dumps({"error": {"message": "max_tokens: wrong", "type": "Bad Request", "code": 400}}).encode()
ANTHROPICS = json.dumps({"type": "error", "error": {"type": "api_error", "message": "x"}}).encode()


def test_an_engines_error_takes_anthropics_form() -> None:
    found = json.loads(table.as_anthropic(OPENAIS, 400))
    assert found == {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: wrong"}}


@pytest.mark.parametrize("body", [ANTHROPICS, b"", b"no JSON", b"[]", b'{"error": 1}', b'{"detail": "x"}'])
def test_what_is_no_error_of_openais_form_stays(body: bytes) -> None:
    assert table.as_anthropic(body, 500) == body
