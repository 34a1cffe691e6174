"""Who waits, who is next, who gives way, and how long to stay away."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.fleet.admission import Crowd, DrainRate, FairQueue

weights = st.floats(0.25, 8.0)
TENANTS = ("a", "b", "c")


def filled(limit: int, own: dict[str, float], **waiting: int) -> FairQueue[int]:
    """A queue in which each tenant has so many waiting, numbered in order of arrival."""
    queue, number = FairQueue[int](limit, own), count()
    for tenant, many in waiting.items():
        for _ in range(many):
            assert queue.put(tenant, next(number), 0.0) is None
    return queue


def served(queue: FairQueue[int]) -> tuple[str, int]:
    found = queue.pop()
    assert found is not None
    return found


@given(weights, weights, st.integers(1, 120))
def test_backlogged_tenants_are_served_by_weight_within_one_request(a: float, b: float, pops: int) -> None:
    queue = filled(1_000, {"a": a, "b": b}, a=130, b=130)
    counts: Counter[str] = Counter()
    for _ in range(pops):
        counts[served(queue)[0]] += 1
        # the bound of start-time fair queuing: one request of each
        assert abs(counts["a"] / a - counts["b"] / b) <= 1 / a + 1 / b + 1e-9


def test_tenants_that_the_file_does_not_weigh_have_one_share() -> None:
    queue = filled(100, {"b": 3.0}, a=30, b=30)
    assert Counter(served(queue)[0] for _ in range(24)) == {"a": 6, "b": 18}


def test_a_tenant_is_served_in_the_order_of_its_arrivals() -> None:
    queue = filled(100, {}, a=3, b=3)
    order = [served(queue) for _ in range(6)]
    assert [n for t, n in order if t == "a"] == [0, 1, 2] and [n for t, n in order if t == "b"] == [3, 4, 5]
    assert queue.pop() is None and len(queue) == 0


def test_who_comes_late_to_a_long_queue_is_next_but_one() -> None:
    queue = filled(100, {}, a=50)
    served(queue)
    queue.put("b", 99, 0.0)
    assert ("b", 99) in [served(queue), served(queue)]


def test_an_idle_tenant_saves_no_credit() -> None:
    queue = filled(1_000, {}, a=200)
    for _ in range(100):
        served(queue)
    for n in range(50):
        queue.put("b", 1_000 + n, 0.0)
    assert Counter(served(queue)[0] for _ in range(40)) == {"a": 20, "b": 20}


def test_to_leave_and_come_back_does_not_jump_the_queue() -> None:
    """A tenant that empties its part after each service waits as long as if it had not."""
    queue = filled(1_000, {}, a=100)
    counts: Counter[str] = Counter()
    queue.put("b", 0, 0.0)
    for n in range(40):
        tenant, _ = served(queue)
        counts[tenant] += 1
        if tenant == "b":
            queue.put("b", n, 0.0)
    assert counts == {"a": 20, "b": 20}


def test_the_newest_of_who_is_most_over_its_share_gives_way() -> None:
    queue = filled(6, {}, a=4, b=2)
    assert queue.put("b", 90, 0.0) == 3  # a's newest
    assert queue.put("b", 91, 0.0) == 91  # now b would have the most: it gives way itself
    assert len(queue) == 6
    assert queue.put("c", 92, 0.0) in (2, 90)  # a and b have three each
    assert [served(queue)[0] for _ in range(6)].count("c") == 1


def test_shares_count_by_weight() -> None:
    queue = filled(6, {"a": 4.0}, a=4, b=2)
    assert queue.put("a", 90, 0.0) == 5  # a's five are 1.25 of its shares, b's two are 2 of its own


def test_who_is_refused_keeps_no_trace() -> None:
    queue = filled(1, {}, a=1)
    assert queue.put("b", 1, 0.0) == 1
    assert served(queue) == ("a", 0) and queue.pop() is None


def test_no_queue_means_no_one_waits() -> None:
    queue = FairQueue[int](0, {})
    assert queue.put("a", 7, 0.0) == 7 and len(queue) == 0 and queue.pop() is None


def test_memory_does_not_grow_with_tenants_that_came_once() -> None:
    queue = FairQueue[int](8, {})
    queue.put("always", 0, 0.0)
    queue.put("always", 0, 0.0)
    for n in range(2_000):
        queue.put(f"t{n}", n, 0.0)
        queue.put("always", n, 0.0)
        served(queue)
        served(queue)
    assert len(queue) == 2
    assert sum(len(held) for held in vars(queue).values() if isinstance(held, dict)) < 20
    for _ in range(2):
        served(queue)
    assert all(not held for held in vars(queue).values() if isinstance(held, dict) and held is not queue._weights)


class Queue(RuleBasedStateMachine):
    """Whatever happens, nobody is lost, doubled or served out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.numbers = FairQueue[int](5, {"a": 2.0, "b": 0.5}), count()
        self.waiting: dict[str, deque[int]] = {tenant: deque() for tenant in TENANTS}

    @rule(tenant=st.sampled_from(TENANTS))
    def put(self, tenant: str) -> None:
        item, full = next(self.numbers), len(self.queue) == 5
        self.waiting[tenant].append(item)
        out = self.queue.put(tenant, item, 0.0)
        assert (out is not None) == full
        if out is not None:
            owner = next(t for t, items in self.waiting.items() if out in items)
            assert self.waiting[owner].pop() == out  # its newest

    @rule()
    def pop(self) -> None:
        found = self.queue.pop()
        assert (found is None) == (not any(self.waiting.values()))
        if found is not None:
            assert self.waiting[found[0]].popleft() == found[1]

    @rule(tenant=st.sampled_from(TENANTS), item=st.integers(0, 40))
    def remove(self, tenant: str, item: int) -> None:
        there = item in self.waiting[tenant]
        assert self.queue.remove(tenant, item) == there
        if there:
            self.waiting[tenant].remove(item)

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == sum(map(len, self.waiting.values())) <= 5


Queue.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestQueue = Queue.TestCase


def test_before_anything_finished_retry_after_is_a_guess_within_bounds() -> None:
    rate = DrainRate()
    assert [rate.retry_after_s(ahead, 5.0) for ahead in (0, 1, 30, 10_000)] == [1, 1, 30, 120]


@pytest.mark.parametrize(("every_s", "ahead", "expected"), [
    (0.1, 100, 10),  # ten a second
    (0.001, 100, 1),  # more than are remembered
    (2.0, 10, 20),
    (30.0, 3, 90),  # long answers: nothing finished in the last seconds, and still no guess
])
def test_retry_after_follows_the_pace(every_s: float, ahead: int, expected: int) -> None:
    rate, now = DrainRate(), 1_000.0
    for _ in range(400):
        now += every_s
        rate.done(now)
    assert rate.retry_after_s(ahead, now) == pytest.approx(expected, rel=0.35, abs=1)


def test_the_pace_of_long_ago_is_forgotten_and_a_fast_one_now_counts() -> None:
    rate = DrainRate()
    for n in range(20):
        rate.done(float(n))
    assert rate.retry_after_s(10, 10_000.0) == 10  # the guess
    for at in [*range(10_000, 10_050), *(10_100 + n / 100 for n in range(100))]:
        rate.done(at)
    assert rate.retry_after_s(100, 10_101.0) <= 2


@given(st.lists(st.floats(0, 1e9), max_size=300), st.integers(0, 100_000), st.floats(0, 1e9))
def test_retry_after_stays_within_bounds(done: list[float], ahead: int, later: float) -> None:
    rate = DrainRate()
    for at in sorted(done):
        rate.done(at)
    assert 1 <= rate.retry_after_s(ahead, max(done, default=0.0) + later) <= 120


def spare(crowd: Crowd, tenant: str, seats: int, capacity: int, now: float) -> int:
    """Seats of each replica, of `seats`, that are not for this tenant now, as a lane asks."""
    return crowd.kept(seats, capacity, now) if crowd.over((tenant,), capacity, now) else 0


def test_who_has_its_part_leaves_a_seat_while_others_are_about() -> None:
    crowd = Crowd({"b": 3.0})
    crowd.came("a", 0.0)
    for _ in range(8):
        crowd.took("a", 0.0)
    assert spare(crowd, "a", 8, 8, 1.0) == 0  # alone
    crowd.came("b", 1.0)
    assert spare(crowd, "a", 8, 8, 2.0) == 1 and spare(crowd, "a", 64, 64, 2.0) == 0
    assert spare(crowd, "b", 8, 8, 2.0) == 0
    assert spare(crowd, "a", 64, 32, 2.0) == 4  # 8 are its quarter of 32
    assert spare(crowd, "a", 3, 3, 2.0) == 0  # of so few none is kept
    for _ in range(7):
        crowd.left("a")
    assert spare(crowd, "a", 8, 8, 3.0) == 0  # below its quarter of 8
    crowd.took("a", 3.0)
    assert spare(crowd, "a", 8, 8, 3.0) == 1
    assert spare(crowd, "a", 8, 8, 100.0) == 0  # b has long been gone


def test_who_is_still_being_answered_is_about_however_long_ago_it_came() -> None:
    crowd = Crowd({})
    crowd.came("a", 0.0)
    crowd.took("a", 0.0)
    crowd.came("b", 500.0)
    for _ in range(6):
        crowd.took("b", 500.0)
    assert spare(crowd, "b", 8, 8, 500.0) == 1, "a's long stream runs"
    assert crowd.over(("a", "b"), 8, 900.0) == {"b"}, "and neither has come for a while"
    crowd.left("a")
    assert spare(crowd, "b", 8, 8, 500.0) == 0 and crowd.over(("b",), 8, 900.0) == set()


def test_as_many_seats_are_kept_as_others_have_lately_held_at_once() -> None:
    crowd = Crowd({})
    crowd.came("modest", 0.0)
    for at in range(3):
        crowd.took("modest", float(at))
    for _ in range(3):
        crowd.left("modest")
    crowd.came("greedy", 5.0)
    for _ in range(8):
        crowd.took("greedy", 5.0)
    assert spare(crowd, "greedy", 16, 16, 6.0) == 3 and spare(crowd, "modest", 16, 16, 6.0) == 0
    assert spare(crowd, "greedy", 8, 8, 6.0) == 2, "a quarter of the seats at most"
    assert spare(crowd, "greedy", 8, 16, 6.0) == 2, "one and a half of each replica"
    crowd.took("modest", 6.0)
    assert spare(crowd, "greedy", 16, 16, 7.0) == 2, "it holds one of the three"
    crowd.left("modest")
    crowd.came("modest", 80.0)
    assert spare(crowd, "greedy", 16, 16, 80.0) == 1, "that it held three at once is long ago"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(4, 40))
def test_someone_is_always_let_to_every_seat(events: list[tuple[str, bool]], seats: int) -> None:
    """However seats are held, not all tenants are kept from a free one: the one that holds least for its weight."""
    crowd, held = Crowd({}), Counter[str]()
    for n, (tenant, takes) in enumerate(events):
        crowd.came(tenant, float(n))
        if takes and held.total() < seats:
            crowd.took(tenant, float(n))
            held[tenant] += 1
        elif held[tenant]:
            crowd.left(tenant)
            held[tenant] -= 1
    if held.total() < seats and events:
        here = {tenant for tenant, _ in events}
        assert any(spare(crowd, tenant, seats, seats, float(len(events))) == 0 for tenant in here)
