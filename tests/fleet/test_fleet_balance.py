"""Which replica answers: alike in every gateway, near the conversation's cache, never overloaded."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.balance import Balancer, Policy, Replica, key_of, tag

names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=8, unique=True)
keys = st.integers(0, 2**64 - 1)
POLICIES: tuple[Policy, ...] = ("prefix", "least_loaded", "round_robin")


def replicas(ids: list[str]) -> list[Replica]:
    return [Replica(i, f"10.0.0.1:{n}") for n, i in enumerate(ids, 9000)]


def balancer(ids: list[str], policy: Policy = "prefix", limit: int = 1_000, **more: float) -> Balancer:
    found = Balancer(policy, limit, **more)
    found.update(replicas(ids))
    return found


def chosen(found: Balancer, key: int | None, exclude: tuple[str, ...] = ()) -> str:
    replica = found.choose(key, exclude)
    assert replica is not None
    return replica.replica_id


def taken(found: Balancer, key: int | None = None) -> str:
    name = chosen(found, key)
    found.begin(name)
    return name


UNHURRIED = 4


@given(names, keys, st.randoms())
def test_gateways_that_share_nothing_choose_alike(ids: list[str], key: int, random) -> None:
    other = list(ids)
    random.shuffle(other)
    assert chosen(balancer(ids), key) == chosen(balancer(other), key)


@given(names.filter(lambda n: len(n) > 1), st.lists(keys, max_size=50), st.data())
def test_a_replica_that_goes_moves_only_its_own_conversations(ids: list[str], asked: list[int], data) -> None:
    gone = data.draw(st.sampled_from(ids))
    found = balancer(ids)
    before = {key: chosen(found, key) for key in asked}
    excluded = {key: chosen(found, key, (gone,)) for key in asked}
    found.update(replicas([i for i in ids if i != gone]))
    for key, name in before.items():
        assert chosen(found, key) == excluded[key] != gone
        assert name in (gone, chosen(found, key))


@given(names, st.lists(keys, min_size=1, max_size=80), st.sampled_from([1.0, 1.25, 2.0]))
def test_no_replica_is_far_above_the_mean(ids: list[str], asked: list[int], factor: float) -> None:
    found = balancer(ids, factor=factor)
    load = Counter(taken(found, key % 3) for key in asked)  # three conversations only: the worst case
    assert max(load.values()) <= max(UNHURRIED, math.ceil(factor * len(asked) / len(ids)))


@given(names, st.sampled_from(POLICIES), st.integers(1, 5), st.lists(st.one_of(st.none(), keys), max_size=60))
def test_every_seat_is_given_and_none_twice(ids: list[str], policy: Policy, limit: int, asked: list) -> None:
    found = balancer(ids, policy, limit)
    load: Counter[str] = Counter()
    for key in asked:
        replica = found.choose(key)
        assert (replica is None) == (found.in_flight() == found.capacity() == limit * len(ids))
        if replica is not None:
            found.begin(replica.replica_id)
            load[replica.replica_id] += 1
    assert max(load.values(), default=0) <= limit and found.in_flight() == sum(load.values())


@given(names, st.sampled_from(POLICIES), st.one_of(st.none(), keys), st.data())
def test_the_excluded_are_not_chosen(ids: list[str], policy: Policy, key: int | None, data) -> None:
    exclude = data.draw(st.sets(st.sampled_from(ids)))
    replica = balancer(ids, policy).choose(key, exclude)
    assert replica is None if exclude == set(ids) else replica is not None and replica.replica_id not in exclude


def test_the_load_of_the_excluded_does_not_raise_the_bound_of_the_rest() -> None:
    found = balancer(["a", "b", "c"])
    home = chosen(found, 7, ("a",))
    other = "c" if home == "b" else "b"
    for name in ["a"] * 30 + [home] * 5:
        found.begin(name)
    assert chosen(found, 7, ("a",)) == other  # 5 of 5 is not below max(4, ceil(1.25 * 6 / 2))


def test_a_replica_with_little_to_do_keeps_its_conversations() -> None:
    found = balancer(["a", "b"])
    home = chosen(found, 7)
    for _ in range(UNHURRIED - 1):
        found.begin(home)
    assert chosen(found, 7) == home  # 3 of 3, far above the mean, yet not busy
    found.begin(home)
    assert chosen(found, 7) != home


def test_conversations_spread_evenly() -> None:
    found = balancer(["a", "b", "c", "d"])
    counts = Counter(chosen(found, key_of(b"%d" % n)) for n in range(8_000))
    assert all(1_800 < counts[name] < 2_200 for name in "abcd")  # 5 standard deviations around 2,000


def test_a_conversation_stays_while_its_replica_is_not_overloaded() -> None:
    found = balancer(["a", "b"])
    home = chosen(found, 7)
    other = "b" if home == "a" else "a"
    for name in [home, other] * 2 + [home] * 2:
        found.begin(name)
    assert chosen(found, 7) == home  # 4 of 6 is below ceil(1.25 * 7 / 2) = 5
    found.begin(home)
    assert chosen(found, 7) == other  # 5 of 7 is not below ceil(1.25 * 8 / 2) = 5
    found.end(home)
    assert chosen(found, 7) == home


@pytest.mark.parametrize("policy", POLICIES)
def test_to_ask_twice_changes_nothing(policy: Policy) -> None:
    found = balancer(["a", "b", "c"], policy)
    seen = []
    for _ in range(6):
        assert chosen(found, None) == chosen(found, None)
        seen.append(taken(found))
    assert Counter(seen) == {"a": 2, "b": 2, "c": 2}


def test_turns_pass_over_a_full_replica_without_doubling_its_neighbour() -> None:
    found = balancer(["a", "b", "c"], "round_robin", limit=2)
    found.begin("b")
    found.begin("b")
    seen = []
    for _ in range(20):
        seen.append(taken(found))
        found.end(seen[-1])
    assert Counter(seen) == {"a": 10, "c": 10}


def test_the_least_busy_replica_is_next_and_ties_take_turns() -> None:
    found = balancer(["a", "b", "c"], "least_loaded")
    found.begin("a")
    assert {taken(found), taken(found)} == {"b", "c"}
    seen = []
    for _ in range(9):  # all have one
        seen.append(taken(found))
        found.end(seen[-1])
    assert Counter(seen) == {"a": 3, "b": 3, "c": 3}


def test_requests_in_flight_outlive_an_update_and_what_is_gone_is_forgotten() -> None:
    found = balancer(["a", "b"], "least_loaded")
    for name in ("a", "a", "b"):
        found.begin(name)
    found.update(replicas(["a", "c"]))
    assert found.in_flight() == 2 and [r.replica_id for r in found.replicas] == ["a", "c"]
    found.end("b")
    found.begin("unknown")
    found.end("unknown")
    assert found.in_flight() == 2 and chosen(found, None) == "c"
    for _ in range(5):
        found.end("a")
    assert found.in_flight() == 0
    found.update([])
    assert found.choose(1) is None and found.choose(None) is None and found.capacity() == 0


def test_memory_does_not_grow_with_replicas_that_come_and_go() -> None:
    found = Balancer("prefix", 4)
    for n in range(500):
        found.update(replicas([f"r{n}", f"r{n + 1}"]))
        taken(found, n)
    sizes = {name: len(held) for name, held in vars(found).items() if hasattr(held, "__len__")}
    assert all(size <= 4 for name, size in sizes.items() if name != "_policy"), sizes


def test_a_tag_leads_back_to_its_replica() -> None:
    found = balancer(["a", "b"])
    for replica in found.replicas:
        assert len(tag(replica.replica_id)) == 8 and found.by_tag(tag(replica.replica_id)) is replica
    assert found.by_tag("00000000") is None


def test_tags_and_keys_are_the_same_in_every_process() -> None:
    code = "from serving.fleet.balance import key_of, tag; print(tag('a'), key_of(b'x', b'yz'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told == [tag("a"), str(key_of(b"x", b"yz"))] == ["170ea7d9", "4289416188804071106"]
    assert key_of(b"x", b"yz") != key_of(b"xy", b"z") and 0 <= key_of() < 2**64
