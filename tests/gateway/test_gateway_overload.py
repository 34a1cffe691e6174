"""More than the replicas can take: a bounded queue, fair among tenants, and an honest word on when to come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from fake_replica import Exchange, answers, hangs, streams
from gateway_rig import CHAT, OF, Rig, fleet_file

from serving.fleet.autoscaling.told import GatewayTold

Make = Callable[[str], Awaitable[Rig]]


def full(queue: int, wait_s: float = 30.0, **more: object) -> str:
    limits = {"max_in_flight": 1, "max_queue": queue, "max_wait_s": wait_s}
    return fleet_file({"qwen": {"overload": limits} | more}, tenants={"demo": {}, "a": {"weight": 2}, "b": {}})


class Calls:
    """Requests under way, in the order of their start."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.all: list[asyncio.Task[tuple[int, dict, str]]] = []

    async def start(self, tenant: str = "demo") -> asyncio.Task[tuple[int, dict, str]]:
        """One more; returns once it has a seat, waits or has been refused."""
        before = (self.rig.meter.begun, self.rig.meter.waiting["qwen"], len(self.rig.meter.answers))
        self.all.append(asyncio.ensure_future(self._one(tenant)))
        async with asyncio.timeout(3):
            while before == (self.rig.meter.begun, self.rig.meter.waiting["qwen"], len(self.rig.meter.answers)):
                await asyncio.sleep(0.001)
        return self.all[-1]

    async def _one(self, tenant: str) -> tuple[int, dict, str]:
        async with self.rig.post(CHAT, headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
            found = await answer.json()
            code = found.get("error", {}).get("code", "")
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, code

    async def over(self) -> list[int]:
        """All statuses; each has a record."""
        done = await asyncio.wait_for(asyncio.gather(*self.all), 5)
        for _ in self.all:
            await self.rig.record()
        return [status for status, _, _ in done]


async def asked(rig: Rig, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    """An answer's status, headers and text."""
    async with rig.post(CHAT, headers=headers or {}) as answer:
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.text()


def gated(gate: asyncio.Semaphore):
    async def run(exchange) -> None:
        await gate.acquire()
        await answers()(exchange)

    return run


@pytest.mark.parametrize("queue", [0, 1, 3])
async def test_the_queue_is_bounded(make_rig: Make, queue: int) -> None:
    rig = await make_rig(full(queue))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    for _ in range(1 + queue):
        await calls.start()
    assert rig.meter.waiting["qwen"] == queue
    status, headers, code = await asyncio.wait_for(await calls.start(), 3)
    assert (status, code) == (429, "too_many_waiting")
    assert int(headers["retry-after"]) >= 1
    assert rig.meter.waiting["qwen"] == queue
    for _ in range(1 + queue):
        gate.release()
    assert await calls.over() == [200] * (1 + queue) + [429]
    assert rig.meter.waiting["qwen"] == 0


async def test_whoever_decides_about_replicas_hears_of_what_waits_and_of_what_was_late(make_rig: Make) -> None:
    rig = await make_rig(full(9, slo={"ttft_ms": 0.001, "tpot_ms": 1_000_000}))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))

    def told() -> GatewayTold:
        found = GatewayTold.of(rig.gateway.told(), "qwen")
        assert found is not None
        return found

    calls = Calls(rig)
    await calls.start()
    assert told() == GatewayTold(arrived=1)
    for _ in range(2):
        await calls.start()
    size = len(json.dumps(CHAT))
    assert (told().arrived, told().queued, told().queued_tokens) == (3, 2, pytest.approx(2 * size * 0.25))
    for _ in range(3):
        gate.release()
    assert await calls.over() == [200] * 3
    # what was not streamed has no first token to be late
    assert told() == GatewayTold(arrived=3, promised=3, missed=0)
    lane = rig.gateway._forward._lanes["qwen"]
    assert lane._per_byte < 0.25, "three prompts of fewer tokens than that have been seen"
    lane.read(100, 10**9)
    queued = await calls.start(), await calls.start()
    assert told().queued_tokens == rig.fleet.models["qwen"].engine.max_model_len
    for _ in queued:
        gate.release()
    await asyncio.wait_for(asyncio.gather(*queued), 3)
    for _ in queued:
        await rig.record()


async def test_a_stream_that_is_late_is_told_as_missed(make_rig: Make) -> None:
    rig = await make_rig(fleet_file({"qwen": {"slo": {"ttft_ms": 0.001, "tpot_ms": 1_000_000}}}))
    await rig.replica(streams([b"data: {}\n\n"]))
    async with rig.post(CHAT | {"stream": True}) as answer:
        await answer.read()
    await rig.record()
    found = GatewayTold.of(rig.gateway.told(), "qwen")
    assert found is not None and (found.promised, found.missed) == (1, 1)


async def test_the_wait_is_bounded(make_rig: Make) -> None:
    rig = await make_rig(full(9, wait_s=0.1))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    await calls.start()
    status, headers, code = await asyncio.wait_for(await calls.start(), 3)
    assert (status, code) == (503, "overloaded")
    assert int(headers["retry-after"]) >= 1
    gate.release()
    assert await calls.over() == [200, 503]


async def test_seats_go_by_weight_among_tenants(make_rig: Make) -> None:
    rig = await make_rig(full(99))
    gate = asyncio.Semaphore(0)
    replica = await rig.replica(gated(gate))
    calls = Calls(rig)
    await calls.start()
    for tenant in "bbbbbb" + "aaaaaa":
        await calls.start(tenant)
    for _ in calls.all:
        gate.release()
    assert set(await calls.over()) == {200}
    order = "".join(e.headers["x-flotilla-tenant"] for e in replica.asked[1:])
    assert order[:3].count("a") == 2 and order[:6].count("a") == 4, order
    assert order[9:] == "bbb", order


async def test_when_it_is_full_the_one_with_the_most_gives_way(make_rig: Make) -> None:
    rig = await make_rig(full(3))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    for _ in range(4):
        await calls.start("b")
    late = await calls.start("a")
    status, headers, code = await asyncio.wait_for(calls.all[3], 3)
    assert (status, code) == (429, "too_many_waiting"), "the newest of b"
    assert not late.done()
    for _ in range(4):
        gate.release()
    assert await calls.over() == [200, 200, 200, 429, 200]


async def test_who_leaves_makes_room(make_rig: Make) -> None:
    rig = await make_rig(full(1))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    await calls.start()
    leaver = await calls.start()
    leaver.cancel()
    assert (await rig.record()).outcome == "aborted"
    assert rig.meter.waiting["qwen"] == 0
    calls.all.remove(leaver)
    await calls.start()
    assert rig.meter.waiting["qwen"] == 1
    gate.release()
    gate.release()
    assert await calls.over() == [200, 200]


async def test_the_time_to_come_back_follows_the_pace(make_rig: Make) -> None:
    rig = await make_rig(full(4))
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))

    async def told() -> int:
        calls = Calls(rig)
        for _ in range(5):
            await calls.start()
        status, headers, _ = await asyncio.wait_for(await calls.start(), 3)
        assert status == 429
        for _ in range(5):
            gate.release()
        await calls.over()
        return int(headers["retry-after"])

    before = await told()
    for _ in range(3):
        after = await told()
    assert before >= 4, "nothing has finished yet: a second each"
    assert after == 1, "20 have finished within the second"


async def test_a_replica_that_comes_while_some_wait_is_used(make_rig: Make) -> None:
    rig = await make_rig(full(9))
    await rig.replica(hangs)
    calls = Calls(rig)
    first = await calls.start()
    for _ in range(3):
        await calls.start()
    second = await rig.replica()
    await asyncio.wait_for(asyncio.gather(*calls.all[1:]), 2)
    assert len(second.asked) == 3
    first.cancel()
    await asyncio.wait([first])
    assert sorted([(await rig.record()).outcome for _ in calls.all]) == ["aborted"] + ["finished"] * 3


async def test_a_model_at_zero_is_woken_and_waited_for(make_rig: Make) -> None:
    rig = await make_rig(full(2, replicas={"min": 0, "max": 1}))
    rig.directory.states["qwen"], rig.directory.patience_s = "scaled_to_zero", 5
    calls = [asyncio.ensure_future(Calls(rig)._one("demo")) for _ in range(2)]
    while len(rig.directory.woken) < 2:
        await asyncio.sleep(0.001)
    status, headers, code = await asyncio.wait_for(Calls(rig)._one("demo"), 3)
    assert (status, code) == (429, "too_many_waiting"), "what waits for a replica is bounded as well"
    assert int(headers["retry-after"]) >= 1
    await rig.replica()
    assert {status for status, _, _ in await asyncio.wait_for(asyncio.gather(*calls), 3)} == {200}
    for _ in range(3):
        await rig.record()


async def test_who_waited_for_a_start_learns_how_long_and_who_comes_later_what_to_expect(make_rig: Make) -> None:
    rig = await make_rig(full(2, replicas={"min": 0, "max": 1}, scaling={"cold_wait_s": 0.2}))
    rig.directory.states["qwen"], rig.directory.patience_s, rig.directory.start_s = "scaled_to_zero", 5, 40.0
    waiting = asyncio.ensure_future(asked(rig))
    while not rig.directory.woken:
        await asyncio.sleep(0.001)
    await rig.replica()
    status, headers, _ = await asyncio.wait_for(waiting, 3)
    assert status == 200 and 0 <= float(headers["x-flotilla-cold-start-s"]) < 3
    assert "x-flotilla-cold-start-s" not in (await asked(rig))[1]
    rig.directory.addresses.clear()
    status, headers, text = await asyncio.wait_for(asked(rig), 3)
    assert (status, headers["retry-after"]) == (503, "40") and "in about 40 s" in text
    rig.directory.woken.clear()
    began = time.monotonic()
    status, _, text = await asked(rig, {"x-flotilla-timeout-s": "20"})
    assert status == 503 and "in about 40 s" in text and rig.directory.woken == ["qwen"]
    assert time.monotonic() - began < 0.15, "it waited for what could not come in time"
    for _ in range(4):
        await rig.record()


async def test_who_waits_for_a_seat_when_the_last_replica_goes_is_not_forgotten(make_rig: Make) -> None:
    rig = await make_rig(full(2, wait_s=0.15, replicas={"min": 0, "max": 1}))
    rig.directory.states["qwen"], rig.directory.patience_s = "scaled_to_zero", 5
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    await calls.start()
    await calls.start()  # waits for the seat
    rig.directory.addresses.clear()  # the replica ends what it has, and takes no more
    gate.release()
    async with asyncio.timeout(3):
        while not rig.directory.woken:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)  # longer than anyone waits for a seat
    assert not calls.all[1].done() and rig.directory.woken == ["qwen"]
    await rig.replica()
    assert await calls.over() == [200, 200]


async def test_with_no_queue_at_all_a_model_at_zero_can_still_be_woken(make_rig: Make) -> None:
    rig = await make_rig(full(0, replicas={"min": 0, "max": 1}))
    rig.directory.states["qwen"], rig.directory.patience_s = "scaled_to_zero", 5
    call = asyncio.ensure_future(Calls(rig)._one("demo"))
    while not rig.meter.waiting["qwen"]:
        await asyncio.sleep(0.001)
    assert rig.directory.woken == ["qwen"]
    await rig.replica()
    assert (await asyncio.wait_for(call, 3))[0] == 200
    assert rig.meter.waiting["qwen"] == 0
    await rig.record()


async def test_a_model_that_does_not_come_up_is_not_waited_for_for_ever(make_rig: Make) -> None:
    rig = await make_rig(full(2, replicas={"min": 0, "max": 1}))
    rig.directory.states["qwen"] = "scaled_to_zero"
    status, headers, code = await asyncio.wait_for(Calls(rig)._one("demo"), 3)
    assert (status, code) == (503, "no_replica")
    assert int(headers["retry-after"]) >= 1
    assert rig.directory.woken == ["qwen"]
    await rig.record()


def four_seats(queue: int = 8) -> str:
    return fleet_file({"qwen": {"overload": {"max_in_flight": 4, "max_queue": queue}}},
                      tenants={"demo": {}, "a": {}, "b": {}})


async def test_a_seat_is_kept_for_who_has_fewer(make_rig: Make) -> None:
    rig = await make_rig(four_seats())
    gate, ranks = asyncio.Semaphore(0), []

    async def run(exchange: Exchange) -> None:
        ranks.append(json.loads(exchange.body).get("priority"))
        await gated(gate)(exchange)

    await rig.replica(run)
    calls = Calls(rig)
    await calls.start("b")  # is about
    gate.release()
    await asyncio.wait_for(asyncio.shield(calls.all[0]), 3)
    for _ in range(5):
        await calls.start("a")
    assert (rig.meter.waiting["qwen"], rig.meter.open.total()) == (2, 3)
    await calls.start("b")
    assert (rig.meter.waiting["qwen"], rig.meter.open.total()) == (2, 4)
    for _ in range(6):
        gate.release()
    assert await calls.over() == [200] * 7
    assert ranks[:5] == [None, None, None, 1, None]  # the engine is told who had its part


async def test_alone_a_tenant_has_all_of_them(make_rig: Make) -> None:
    rig = await make_rig(four_seats())
    gate = asyncio.Semaphore(0)
    await rig.replica(gated(gate))
    calls = Calls(rig)
    for _ in range(5):
        await calls.start("a")
    assert (rig.meter.waiting["qwen"], rig.meter.open.total()) == (1, 4)
    for _ in range(5):
        gate.release()
    assert await calls.over() == [200] * 5
