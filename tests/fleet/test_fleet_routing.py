"""What a name means, for whom: models, aliases, adapters, weighted routes, fallbacks."""

from __future__ import annotations

from collections import Counter

import pytest
from fleet_samples import FLEET
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ModelNotAllowed, UnknownModel
from serving.fleet.balance import key_of
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.routing import Routes, Target

TENANTS = """\
tenants:
  all: {}
  none: {models: []}
  base: {models: [qwen3]}
  one: {models: ["small:pirate"]}
  route: {models: [talk]}
"""
TEXT = FLEET.replace("    aliases: [qwen3, small]\n", """\
    aliases: [qwen3, small]
    adapters: {pirate: {source: "small:lora"}, poet: {source: org/poet}}
    fallback: [llama]
""").replace("tenants:\n  demo: {}\n", """\
routes:
  chat: {variants: {qwen: 90, llama: 10}, aliases: [talk]}
""") + TENANTS
NAMES = ("qwen", "qwen:pirate", "qwen:poet", "llama", "chat")
keys = st.integers(0, 2**64 - 1)


def routes(text: str = TEXT) -> Routes:
    return Routes.of(parse(text, "fleet.yaml", Fleet))


ROUTES, OTHERS = routes(), routes()  # two gateways


def shares(weights: str, keys: int = 20_000) -> dict[int, str]:
    found = routes(TEXT.replace("{qwen: 90, llama: 10}", weights))
    return {n: found.resolve("chat", "all", key_of(b"%d" % n)).model for n in range(keys)}


@pytest.mark.parametrize(("asked", "means"), [
    ("qwen", Target("qwen", "qwen", None, ("qwen", "llama"))),
    ("small", Target("qwen", "qwen", None, ("qwen", "llama"))),
    ("qwen:pirate", Target("qwen:pirate", "qwen", "pirate", ("qwen",))),
    ("qwen3:poet", Target("qwen:poet", "qwen", "poet", ("qwen",))),
    ("llama", Target("llama", "llama", None, ("llama",))),
])
def test_a_name_means_one_thing(asked: str, means: Target) -> None:
    assert routes().resolve(asked, "all", 7) == means


@given(keys, st.sampled_from(["chat", "talk"]))
def test_a_conversation_keeps_its_variant_with_that_ones_fallbacks(key: int, name: str) -> None:
    found = ROUTES.resolve(name, "all", key)
    assert found == OTHERS.resolve("chat", "all", key)
    assert found in (Target("chat", "qwen", None, ("qwen", "llama")), Target("chat", "llama", None, ("llama",)))


def test_weights_are_shares_of_the_traffic() -> None:
    counts = Counter(shares("{qwen: 90, llama: 10}").values())
    assert counts["llama"] == pytest.approx(2_000, abs=170)  # 4 standard deviations
    counts = Counter(shares("{qwen: 1, llama: 1}").values())
    assert counts["llama"] == pytest.approx(10_000, abs=280)


def test_a_changed_weight_moves_only_what_it_must() -> None:
    before, after = shares("{qwen: 90, llama: 10}"), shares("{qwen: 80, llama: 20}")
    moved = Counter((before[n], after[n]) for n in before if before[n] != after[n])
    assert set(moved) == {("qwen", "llama")}
    assert moved["qwen", "llama"] == pytest.approx(2_000, abs=230)


def test_only_the_ratio_of_weights_counts() -> None:
    assert shares("{qwen: 9, llama: 1}", 500) == shares("{qwen: 9000, llama: 1000}", 500)


def test_a_route_over_one_model_is_that_model() -> None:
    assert set(shares("{llama: 3}", 100).values()) == {"llama"}


def unmixed(value: int) -> int:
    """The number that `mix` makes `value` of, with seed 0: its steps backwards."""
    mask = 2**64 - 1
    x = value ^ (value >> 31) ^ (value >> 62)
    x = x * pow(0x94D049BB133111EB, -1, 2**64) & mask
    x ^= (x >> 27) ^ (x >> 54)
    x = x * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
    return x ^ (x >> 30) ^ (x >> 60)


@pytest.mark.parametrize("edge", [0, 2**64 - 1])
def test_keys_at_the_edge_have_a_variant_too(edge: int) -> None:
    key = unmixed(edge) ^ key_of(b"qwen")
    assert routes().resolve("chat", "all", key).model == ("qwen" if edge else "llama")


@pytest.mark.parametrize(("tenant", "may"), [
    ("all", NAMES),
    ("none", ()),
    ("base", ("qwen", "qwen:pirate", "qwen:poet")),
    ("one", ("qwen:pirate",)),
    ("route", ("chat",)),
    ("stranger", ()),  # its line is gone from the file, its key is not
])
def test_a_tenant_sees_and_uses_what_it_may(tenant: str, may: tuple[str, ...]) -> None:
    found = routes()
    assert found.visible(tenant) == may
    for name in NAMES:
        if name in may:
            assert found.resolve(name, tenant, 1).name == name
        else:
            with pytest.raises(ModelNotAllowed) as caught:
                found.resolve(name, tenant, 1)
            assert repr(tenant) in str(caught.value) and repr(name) in str(caught.value)
            assert f"Allowed: {', '.join(sorted(may)) or 'none'}" in str(caught.value)


def test_what_is_not_there_is_told_with_what_the_tenant_may_use_only() -> None:
    for tenant, known in [("all", "Models: chat, llama, qwen, qwen3, qwen3:pirate"), ("none", "Models: none"),
                          ("one", "Models: qwen3:pirate, qwen:pirate, small:pirate"), ("route", "Models: chat, talk")]:
        with pytest.raises(UnknownModel, match=known):
            routes().resolve("qwen4", tenant, 0)
    with pytest.raises(UnknownModel) as caught:
        routes().resolve("lama", "route", 0)
    assert "'llama'" not in str(caught.value)


@pytest.mark.parametrize("asked", ["", ":", "qwen:", ":pirate", "llama:pirate", "chat:pirate", "qwen:pirate:x", "QWEN"])
def test_what_looks_like_a_name_is_none(asked: str) -> None:
    with pytest.raises(UnknownModel, match="Models: "):
        routes().resolve(asked, "all", 0)
