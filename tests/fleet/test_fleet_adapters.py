"""Adapters added while the fleet runs: what they mean, who may use them, and which replicas they stay at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from fleet_samples import FLEET

from serving.errors import ModelNotAllowed, UnknownModel
from serving.fleet.adapters import Adapter
from serving.fleet.balance import Balancer, Replica, key_of
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.routing import Routes

TEXT = FLEET.replace("    aliases: [qwen3, small]\n", """\
    aliases: [qwen3, small]
    lora: {max_rank: 8}
    adapters: {filed: {source: org/f}, shops: {source: org/s, tenants: [shop]}}
""").replace("  demo: {}\n", '  demo: {}\n  shop: {models: [llama]}\n  few: {models: [qwen]}\n'
                             '  one: {models: ["qwen:shops"]}\n')
PIRATE = Adapter("lora_1", "qwen", "pirate", "org/p", "/p", 8, "", None, 1.0)
CLOSED = replace(PIRATE, adapter_id="lora_2", name="closed", tenants=("shop",))


def routes(*added: Adapter) -> Routes:
    return Routes.of(parse(TEXT, "fleet.yaml", Fleet), added)


def test_an_added_one_is_asked_for_like_one_of_the_file() -> None:
    target = routes(PIRATE).resolve("qwen3:pirate", "demo", 0)
    assert (target.name, target.served_by("qwen"), target.asked_of("qwen")) == (
        "qwen:pirate", "qwen:pirate", "qwen:pirate#lora_1")
    filed = routes(PIRATE).resolve("qwen:filed", "demo", 0)
    assert (filed.added, filed.asked_of("qwen")) == (None, "qwen:filed")
    with pytest.raises(UnknownModel):
        routes().resolve("qwen:pirate", "demo", 0)
    with pytest.raises(UnknownModel):
        routes(PIRATE).resolve("qwen:pirate#lora_1", "demo", 0)


@pytest.mark.parametrize("wrong", [
    replace(PIRATE, model="gone"), replace(PIRATE, model="llama"), replace(PIRATE, name="filed")])
def test_one_that_the_fleet_has_no_place_for_changes_nothing(wrong: Adapter) -> None:
    """Its model is gone, has no room for adapters, or has one of that name in the file."""
    found = routes(wrong)
    assert found.visible("demo") == routes().visible("demo")
    assert found.resolve("qwen:filed", "demo", 0).added is None


@pytest.mark.parametrize(("tenant", "may"), [
    ("demo", {"pirate", "filed"}), ("shop", {"closed", "shops"}), ("few", {"pirate", "filed"}), ("one", {"shops"}),
    ("gone", set())])
def test_who_may_use_which(tenant: str, may: set[str]) -> None:
    found = routes(PIRATE, CLOSED)
    for name in ("pirate", "closed", "filed", "shops"):
        if name in may:
            assert found.resolve(f"small:{name}", tenant, 0).adapter == name
        else:
            with pytest.raises(ModelNotAllowed):
                found.resolve(f"small:{name}", tenant, 0)
    assert {n.partition(":")[2] for n in found.visible(tenant) if ":" in n} == may


# -- replicas


def balancer(count: int = 6, most: int = 40) -> Balancer:
    made = Balancer("prefix", most)
    made.update([Replica(f"r{n}", f"h:{n}") for n in range(count)])
    return made


def test_few_requests_for_an_adapter_stay_at_one_replica_whatever_the_conversation() -> None:
    found = {made.replica_id for key in range(50) if (made := balancer().choose(key << 50, (), 7))}
    assert len(found) == 1
    assert {b.choose(0, (), a).replica_id for a in range(200) for b in [balancer()]} == {f"r{n}" for n in range(6)}


def test_many_use_as_many_replicas_as_their_share_needs_and_keep_conversations() -> None:
    here, used = balancer(), Counter[str]()
    for n in range(100):
        replica = here.choose(key_of(b"%d" % (n % 50)), (), 7)
        assert replica is not None
        here.begin(replica.replica_id, 7)
        used[replica.replica_id] += 1
    assert len(used) >= 5 and max(used.values()) <= 22, used
    one = key_of(b"again")
    assert len({here.choose(one, (), 7).replica_id for _ in range(5)}) == 1
    other = here.choose(one, (), 8)
    assert other is not None
    for name, count in used.items():
        for _ in range(count):
            here.end(name, 7)
    assert here.in_flight() == 0 and here._by_adapter == {}


def test_a_full_or_failed_home_is_left_for_the_next() -> None:
    here = balancer(3, 4)
    home = here.choose(None, (), 7)
    assert home is not None
    for _ in range(4):
        here.begin(home.replica_id)
    second = here.choose(None, (), 7)
    assert second is not None and second != home
    assert here.choose(None, (home.replica_id, second.replica_id), 7) not in (None, home, second)
    assert here.choose(None, [f"r{n}" for n in range(3)], 7) is None
