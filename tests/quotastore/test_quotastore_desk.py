"""What a gateway is told about limits, and that what requests have used is counted once, whatever fails."""

from __future__ import annotations

import asyncio
import time

import pytest
from desk_rig import FACTS, WHO, Charged, Fragile, Truth, ask, desk, eventually, limits, used
from timed_stores import Clock

from serving.errors import BudgetExhausted, QuotasUnavailable, RateLimited, RequestTooLarge
from serving.fleet.demand import Estimator
from serving.fleet.limits import stamp
from serving.fleet.quotas import LEASE_S
from serving.fleet.records import Tokens
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Used
from serving.quotastore import desk as module
from serving.quotastore.base import StoreAway
from serving.quotastore.own import OwnBook

DAY = f"tenant/shop/usd/day/{stamp('day', Clock().now)}"


async def spent(store: OwnBook) -> int:
    return (await store.used([(DAY, "money")]))[0]


async def test_what_nothing_limits_passes_without_a_question() -> None:
    of = desk(limits())
    assert not of.concerns(WHO, "qwen") and await of.admit("a", WHO, "qwen", ask()) is None


async def test_requests_of_a_minute_are_counted_and_told() -> None:
    of = desk(limits(requests_per_minute=2))
    assert of.concerns(WHO, "qwen")
    first = await of.admit("a", WHO, "qwen", ask())
    assert first is not None and dict(first.headers) == {
        b"x-ratelimit-limit-requests": b"2", b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"62s"}
    await of.admit("b", WHO, "qwen", ask())
    with pytest.raises(RateLimited, match="the limit of 2 requests a minute of the tenant 'shop' is used up") as found:
        await of.admit("c", WHO, "qwen", ask())
    assert found.value.retry_after_s == 62


async def test_only_the_limited_tenant_is_limited() -> None:
    of = desk(limits(requests_per_minute=1))
    await of.admit("a", WHO, "qwen", ask())
    assert await of.admit("b", Principal("other", "key_2"), "qwen", ask()) is None
    with pytest.raises(RateLimited):
        await of.admit("c", Principal("shop", "key_9"), "qwen", ask())


async def test_a_keys_own_limits_hold_for_it_alone() -> None:
    of = desk(limits())
    one = Principal("shop", "key_1", limits=limits(requests_per_minute=1))
    await of.admit("a", one, "qwen", ask())
    with pytest.raises(RateLimited, match="of this key"):
        await of.admit("b", one, "qwen", ask())
    assert await of.admit("c", WHO, "qwen", ask()) is None


async def test_a_tenants_limit_on_one_model() -> None:
    of = desk(limits(), model_limits={"qwen": limits(concurrent_requests=1)})
    await of.admit("a", WHO, "qwen", ask())
    with pytest.raises(RateLimited, match="1 requests at once of the tenant 'shop' on 'qwen'"):
        await of.admit("b", WHO, "qwen", ask())
    of.settle("a", used())
    await of.start()
    try:
        async with asyncio.timeout(2):
            while True:
                try:
                    await of.admit("c", WHO, "qwen", ask())
                    break
                except RateLimited:
                    await asyncio.sleep(0.005)
    finally:
        await of.close()


async def test_tokens_are_reserved_and_settled_to_the_truth() -> None:
    clock, store = Clock(), OwnBook()
    store._clock = clock
    of = desk(limits(completion_tokens_per_minute=100, prompt_tokens_per_minute=1_000, tokens_per_minute=1_100),
              store, clock=clock)
    await of.start()
    counters = [(f"tenant/shop/{unit}", "rate") for unit in ("completion", "prompt", "tokens")]
    passed = await of.admit("a", WHO, "qwen", ask(60))
    assert passed is not None and passed.completion == 60
    held = await store.used(counters)
    assert held[0] == 60 and held[2] == held[1] + 60
    with pytest.raises(RateLimited, match="40 are left, this request may need 60"):
        await of.admit("b", WHO, "qwen", ask(60))
    of.settle("a", used(5, 7))
    await eventually(lambda: not of._unsent)
    assert await store.used(counters) == [7, 5, 12]
    await of.close()


async def test_who_does_not_say_how_many_tokens_gets_what_is_there() -> None:
    of = desk(limits(completion_tokens_per_minute=100))
    passed = await of.admit("a", WHO, "qwen", ask(None))
    assert passed is not None and passed.completion == 100


async def test_who_asks_for_more_than_a_minute_has_need_not_wait() -> None:
    of = desk(limits(completion_tokens_per_minute=100))
    with pytest.raises(RequestTooLarge, match="it asks for 101 completion tokens; ask for fewer"):
        await of.admit("a", WHO, "qwen", ask(101))


@pytest.mark.parametrize(("said", "most"), [(None, 30), (500, 30), (20, 20)])
async def test_output_tokens_are_capped(said: int | None, most: int) -> None:
    passed = await desk(limits(max_output_tokens=30)).admit("a", WHO, "qwen", ask(said))
    assert passed is not None and passed.completion == most


async def test_a_budget_ends() -> None:
    clock, truth = Clock(), Truth(spent_nanousd=9_997_000_000)
    of = desk(limits(budget_per_day={"soft_usd": 8, "hard_usd": 10}), truth=truth, clock=clock)
    passed = await of.admit("a", WHO, "qwen", ask(1, 0))
    assert passed is not None
    assert passed.nanousd == 3_000_000, "what is left; its replica ends it there"
    assert dict(passed.headers)[b"x-flotilla-budget"] == b"the tenant 'shop' has used 10 of 10 USD of this day"
    with pytest.raises(BudgetExhausted, match="budget of the tenant 'shop' for this day does not pay .* 00:00 UTC"):
        await of.admit("b", WHO, "qwen", ask(1, 0))
    assert truth.asked == 1, "the ledger was asked once"
    clock.now += 86_400
    truth.spent_nanousd = 0
    assert await of.admit("c", WHO, "qwen", ask(1, 0)) is not None, "the next day"


@pytest.mark.parametrize(("hard_usd", "times"), [(10_000, 4), (0.2, 0.5)])
async def test_cheap_ones_before_cut_no_one_off_while_the_budget_is_large(hard_usd: float, times: float) -> None:
    """However little requests have cost, one that idle time is charged to may cost what the model's promise bounds."""
    of = desk(limits(budget_per_day={"hard_usd": hard_usd}))
    bound = Estimator(FACTS).bound(36, 10)
    for n in range(200):
        await of.admit(f"{n}", WHO, "qwen", ask())
        of.settle(f"{n}", used(nanousd=1))
    passed = await of.admit("idle before", WHO, "qwen", ask())
    assert passed is not None and passed.nanousd is not None
    assert passed.nanousd == pytest.approx(times * bound, rel=0.2) if times > 1 else passed.nanousd < times * bound


async def test_a_soft_mark_alone_refuses_nothing() -> None:
    of = desk(limits(budget_per_month={"soft_usd": 1}), truth=Truth(spent_nanousd=5_000_000_000))
    passed = await of.admit("a", WHO, "qwen", ask())
    assert passed is not None and passed.nanousd is None and b"this month" in dict(passed.headers)[b"x-flotilla-budget"]


async def test_an_answer_that_says_nothing_settles_to_what_the_ledger_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRUTH_S", 0.01)
    clock, truth = Clock(), Truth()
    store = OwnBook(clock)
    of = desk(limits(budget_per_day={"hard_usd": 100}, concurrent_requests=1), store, truth, clock=clock)
    await of.start()
    await of.admit("a", WHO, "qwen", ask())
    of.settle("a", Used.unknown())
    truth.known["a"] = Charged(Used(Tokens(5, 0, 3), 70), running=True)
    await asyncio.sleep(0.05)
    assert await spent(store) > 1_000, "it may still spend"
    truth.known["a"] = Charged(Used(Tokens(5, 0, 4), 90))

    async def settled() -> bool:
        return await spent(store) == 90

    await eventually(settled)
    await of.close()


async def test_one_that_never_reached_an_engine_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEVER_S", 0.0)
    clock = Clock()
    store = OwnBook(clock)
    of = desk(limits(budget_per_day={"hard_usd": 100}), store, clock=clock)
    await of.admit("a", WHO, "qwen", ask())
    of.settle("a", Used.unknown())
    of._conclude({}, time.monotonic() + 1)
    await of.start()
    await of.close()
    assert await spent(store) == 0


async def test_a_ledger_that_never_says_leaves_the_reservation_as_the_truth() -> None:
    clock, truth = Clock(), Truth(away=False)
    store = OwnBook(clock)
    of = desk(limits(budget_per_day={"hard_usd": 100}), store, truth, clock=clock)
    await of.admit("a", WHO, "qwen", ask())
    of.settle("a", Used.unknown())
    of._conclude(None, time.monotonic() + 60)
    assert of._silent, "it is waited for"
    of._conclude(None, time.monotonic() + 121)
    await of.start()
    await of.close()
    assert await spent(store) > 1_000


async def test_the_reservations_of_a_dead_gateway_settle_to_what_the_ledger_says() -> None:
    clock, truth = Clock(), Truth()
    store = OwnBook(clock)
    spec = limits(budget_per_day={"hard_usd": 100}, concurrent_requests=2, completion_tokens_per_minute=1_000)
    dead, living = (desk(spec, store, truth, clock=clock) for _ in range(2))
    await dead.admit("a", WHO, "qwen", ask())
    await dead.admit("b", WHO, "qwen", ask())
    truth.known["a"] = Charged(used(5, 7, 90))
    truth.known["b"] = Charged(used(1, 1, 10), running=True)
    assert await living.reap() == 0, "their leases last"
    clock.now += LEASE_S
    assert await living.reap() == 1, "the other one still runs in its engine"
    held = await spent(store)
    truth.known["b"] = Charged(used(1, 1, 10))
    assert await living.reap() == 1 and await living.reap() == 0
    assert await spent(store) == 100 < held
    dead.settle("a", used(5, 7, 90))  # it was not dead after all
    await dead.start()
    await dead.close()
    assert await spent(store) == 100


async def test_what_is_renewed_is_not_reaped() -> None:
    clock = Clock()
    store = OwnBook(clock)
    one, other = (desk(limits(concurrent_requests=1), store, clock=clock) for _ in range(2))
    await one.admit("a", WHO, "qwen", ask())
    for _ in range(4):
        clock.now += LEASE_S - 1
        await one.renew()
        assert await other.reap() == 0
        with pytest.raises(RateLimited):
            await other.admit("b", WHO, "qwen", ask())


async def test_a_gateway_keeps_nothing_of_requests_that_the_store_knows_the_end_of() -> None:
    of = desk(limits(requests_per_minute=10_000))
    for number in range(50):
        await of.admit(f"r{number}", WHO, "qwen", ask())
        of.settle(f"r{number}", used())
    assert not of._open and not of._silent and not of._local._done


async def test_closed_while_the_store_is_away() -> None:
    store = Fragile(OwnBook(Clock()))
    of = desk(limits(requests_per_minute=100), store)
    store.away = True
    with pytest.raises(QuotasUnavailable):
        await of.admit("a", WHO, "qwen", ask())
    assert await desk(limits(), store).admit("b", WHO, "qwen", ask()) is None, "what nothing limits passes"


async def test_open_while_the_store_is_away_within_a_share_of_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    store, spec = Fragile(OwnBook(clock)), limits(requests_per_minute=90, budget_per_day={"hard_usd": 100})
    gateways = [desk(spec, store, Truth(), share=3, fails_open=True, clock=clock) for _ in range(3)]
    store.away = True
    passed = 0
    for number, of in enumerate(gateways):
        for n in range(50):
            try:
                assert await of.admit(f"{number}-{n}", WHO, "qwen", ask())
                passed += 1
            except RateLimited:
                pass
    assert passed == 90
    assert "each gateway's share" in caplog.text


async def test_recovery_settles_what_was_outstanding() -> None:
    """Requests that began before and during an outage, and ended in it, are each counted once afterwards."""
    clock = Clock()
    inner = OwnBook(clock)
    store = Fragile(inner)
    of = desk(limits(budget_per_day={"hard_usd": 100}), store, fails_open=True, clock=clock)
    await of.start()
    await of.admit("before", WHO, "qwen", ask())
    store.away = True
    await of.admit("during", WHO, "qwen", ask())
    of.settle("before", used(nanousd=30))
    of.settle("during", used(nanousd=12))
    await asyncio.sleep(0.05)
    assert len(of._unsent) == 2
    store.away = False
    await eventually(lambda: not of._unsent)
    assert await spent(inner) == 42
    await of.close()


async def test_an_answer_of_the_store_that_was_lost_is_settled_all_the_same() -> None:
    clock = Clock()
    inner = OwnBook(clock)

    class Forgetful(Fragile):
        async def reserve(self, *arguments: object) -> object:
            found = await inner.reserve(*arguments)  # type: ignore[arg-type]
            if self.away:
                raise StoreAway("the answer was lost")
            return found

    store = Forgetful(inner)
    of = desk(limits(budget_per_day={"hard_usd": 100}), store, fails_open=True, clock=clock)
    await of.admit("first", WHO, "qwen", ask())
    of.settle("first", used(nanousd=1))
    store.away = True
    await of.admit("a", WHO, "qwen", ask())
    store.away = False
    of.settle("a", used(nanousd=42))
    await of.start()
    await eventually(lambda: not of._unsent)
    assert await spent(inner) == 43
    await of.close()


async def test_a_budget_whose_past_is_not_known_is_not_guessed() -> None:
    truth = Truth(away=True)
    with pytest.raises(QuotasUnavailable):
        await desk(limits(budget_per_day={"hard_usd": 100}), truth=truth).admit("a", WHO, "qwen", ask())


async def test_changed_limits_count_at_once() -> None:
    of = desk(limits(requests_per_minute=1))
    await of.admit("a", WHO, "qwen", ask())
    of._roster.replace({"shop": of._roster["shop"].model_copy(update={"limits": limits(requests_per_minute=5)})})
    assert await of.admit("b", WHO, "qwen", ask()) is not None


@pytest.mark.parametrize("gateways", [4])
async def test_several_gateways_against_one_limit_let_exactly_that_through(gateways: int) -> None:
    clock = Clock()
    store = OwnBook(clock)
    desks = [desk(limits(requests_per_minute=100, concurrent_requests=60), store, clock=clock) for _ in range(gateways)]

    async def one(number: int) -> bool:
        try:
            await desks[number % gateways].admit(f"r{number}", WHO, "qwen", ask())
        except RateLimited:
            return False
        if number % 2:
            desks[number % gateways].settle(f"r{number}", used())
        return True

    for of in desks:
        await of.start()
    passed = sum(await asyncio.gather(*(one(n) for n in range(500))))
    for of in desks:
        await of.close()
    assert passed <= 100
    assert passed + (await store.used([("tenant/shop/seats", "seats")]))[0] >= 60


async def test_a_desk_ends_even_if_its_store_swallows_the_cancellation() -> None:
    entered = asyncio.Event()

    class Swallows(OwnBook):
        async def settle(self, settlements) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return  # as redis-py's connection pool does

    at = desk(limits(requests_per_minute=10), Swallows())
    await at.start()
    await at.admit("r1", WHO, "qwen", ask())
    at.settle("r1", used())
    await entered.wait()
    await asyncio.wait_for(at.close(patience_s=0.01), 5)
