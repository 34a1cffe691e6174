from __future__ import annotations

import pytest

from loadtests.endpoint import Endpoint
from loadtests.errors import ArgumentError, UnreachableError


@pytest.mark.parametrize(
    ("url", "endpoint", "path"),
    [
        ("http://h:8000", Endpoint("h", 8000, False), "/v1/models"),
        ("http://h:8000/v1/", Endpoint("h", 8000, False), "/v1/models"),
        ("https://h/llm/v1", Endpoint("h", 443, True, "/llm"), "/llm/v1/models"),
        ("http://h/llm", Endpoint("h", 80, False, "/llm"), "/llm/v1/models"),
    ],
)
def test_base_urls(url, endpoint, path):
    parsed = Endpoint.parse(url, None)
    assert parsed == endpoint and parsed.path("/v1/models") == path


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h", "http://", "http://h:port"])
def test_wrong_base_urls(url):
    with pytest.raises(ArgumentError, match="--base-url"):
        Endpoint.parse(url, None)


def test_no_key_no_header():
    assert Endpoint.parse("http://h", "").headers() == {}
    assert Endpoint.parse("http://h", "k").headers() == {"authorization": "Bearer k"}


def test_served_models(start_fake):
    url = start_fake("--models", "a", "b").url
    assert Endpoint.parse(url, "k").served_models() == ["a", "b"]
    with pytest.raises(ArgumentError, match="401 to the key in FLOTILLA_API_KEY"):
        Endpoint.parse(url, "wrong").served_models()
    with pytest.raises(UnreachableError, match="nothing answers at 127.0.0.1:1"):
        Endpoint.parse("http://127.0.0.1:1", None).served_models()
