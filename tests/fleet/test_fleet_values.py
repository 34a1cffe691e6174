"""The fleet's small values: routes, keys, records."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fleet_samples import write

from serving.errors import UnknownModel, nearest
from serving.fleet.catalogue import load
from serving.fleet.records import TOKEN_KINDS, Tokens
from serving.fleet.routing import Routes
from serving.fleet.tenants import KEY_PREFIX, ApiKey, compose_key, digest


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


def test_tokens_add_up_by_kind() -> None:
    one, two = Tokens(10, 4, 7), Tokens(1, 1, 1)
    assert one + two - two == one
    assert [one.of(kind) for kind in TOKEN_KINDS] == [10, 4, 7]
