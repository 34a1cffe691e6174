"""The fleet's small values: price book, routes, keys, records."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from fleet_samples import PRICES, write

from serving.errors import ConfigError, UnknownModel, nearest
from serving.fleet import prices
from serving.fleet.catalogue import load
from serving.fleet.records import BUCKETS, TOKEN_KINDS, Tokens, bucket_of
from serving.fleet.routing import Routes
from serving.fleet.tenants import KEY_PREFIX, ApiKey, compose_key, digest


def book(folder: Path, content: object) -> Path:
    path = folder / "book.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_request_is_priced_with_its_cached_part(tmp_path: Path) -> None:
    found = prices.load(book(tmp_path, PRICES))
    assert found.origin == "made up"
    assert found["api-one"].cost_usd(100, 40, 10) == pytest.approx(60e-6 + 4e-6 + 40e-6)
    # without a cache price the cached part costs as much as the rest
    assert found["api-two"].cost_usd(100, 40, 10) == pytest.approx(200e-6 + 80e-6)


def test_what_cannot_price_a_request_is_left_out(tmp_path: Path) -> None:
    assert set(prices.load(book(tmp_path, PRICES)).prices) == {"api-one", "api-two"}


def test_an_unknown_price_names_the_nearest(tmp_path: Path) -> None:
    found = prices.load(book(tmp_path, PRICES))
    with pytest.raises(ConfigError, match="did you mean 'api-one'"):
        found["api-oen"]
    with pytest.raises(ConfigError, match="known: api-one, api-two"):
        found["zzz"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"models": {}}',
        '{"origin": "x", "models": [1]}',
        '{"origin": "x", "models": {"a": 1}}',
    ],
)
def test_what_is_no_price_book(content: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"book\.json: not a price book"):
        prices.load(book(tmp_path, content))


def test_names_and_aliases_lead_to_models(tmp_path: Path) -> None:
    routes = Routes.of(load(write(tmp_path)))
    found = [routes.resolve(n, "demo", 0).model for n in ("qwen", "qwen3", "small", "llama")]
    assert found == ["qwen", "qwen", "qwen", "llama"]


def test_an_unknown_model_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        Routes.of(load(write(tmp_path))).resolve("qwen33", "demo", 0)
    assert "Did you mean 'qwen3'?" in str(caught.value)
    assert "llama, qwen, qwen3, small" in str(caught.value)


def test_nothing_near_is_not_suggested() -> None:
    assert nearest("zzz", ["qwen", "llama"]) is None
    assert nearest("lama", ["qwen", "llama"]) == "llama"


def test_a_key_is_as_random_as_its_bytes() -> None:
    key = compose_key(bytes(range(24)))
    assert key == KEY_PREFIX + bytes(range(24)).hex()
    with pytest.raises(ValueError, match="at least 16"):
        compose_key(bytes(15))


def test_a_digest_needs_the_pepper() -> None:
    key = compose_key(bytes(24))
    assert digest(key, b"one") == digest(key, b"one") != digest(key, b"two")
    assert digest(key, b"one") != digest(key + "0", b"one")
    assert key not in digest(key, b"one")
    assert digest(key, b"") != hashlib.sha256(key.encode()).hexdigest()


def test_a_revoked_key_is_not_usable() -> None:
    assert ApiKey("id", "t", "n", "p", "d", 1.0).usable
    assert not ApiKey("id", "t", "n", "p", "d", 1.0, 2.0).usable


def test_work_that_no_one_received_is_waste() -> None:
    assert [bucket_of(o) for o in ("finished", "running", "aborted", "failed")] == [
        "direct",
        "direct",
        "waste",
        "waste",
    ]
    assert {bucket_of(o) for o in ("finished", "aborted")} < set(BUCKETS)


def test_tokens_add_up_by_kind() -> None:
    one, two = Tokens(10, 4, 7), Tokens(1, 1, 1)
    assert one + two - two == one
    assert [one.of(kind) for kind in TOKEN_KINDS] == [10, 4, 7]
