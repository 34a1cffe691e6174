"""Which model and which replica answers: routes, adapters, fallbacks, allow-lists, conversations, stored responses."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from fake_replica import ANSWER, SEEN, STREAM, answers, event, hangs, hangs_up, streams
from gateway_rig import CHAT, OF, STREAMED, Rig, fleet_file

Make = Callable[[str], Awaitable[Rig]]
ROUTED = fleet_file(
    {"big": {}, "small": {}, "qwen": {"aliases": ["q"], "adapters": {"pirate": {"source": "org/p"}, "poet": {
        "source": "org/q"}}}},
    routes={"chat": {"variants": {"big": 90, "small": 10}, "aliases": ["talk"]}},
    tenants={"demo": {}, "few": {"models": ["chat", "qwen:pirate"]}, "one": {"models": ["q"]}},
)
CHAIN = {"first": {"fallback": ["second", "third"]}, "second": {}, "third": {}}


async def ask(rig: Rig, model: str, tenant: str = "", text: str = "hi", **more: object) -> tuple[int, str]:
    """Status and the model that answered. The record must say the same."""
    headers = {"authorization": f"Bearer {OF}{tenant}"} if tenant else {}
    headers |= more.pop("headers", {})  # type: ignore[arg-type]
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    async with rig.post(body, headers=headers) as answer:
        served = answer.headers.get("x-flotilla-model", "")
        await answer.read()
    record = await rig.record()
    assert record.code == answer.status
    assert record.model == served.partition(":")[0]
    return answer.status, served


async def of(rig: Rig, model: str, script=None):
    """A replica of one model."""
    made = await rig.replica(script)
    rig.directory.addresses.remove(made.address)
    rig.directory.only.setdefault(model, []).append(made.address)
    return made


def said_model(replica) -> str:
    return json.loads(replica.last.body)["model"]


# -- names


async def test_a_route_spreads_conversations_and_keeps_each(make_rig: Make) -> None:
    rig = await make_rig(ROUTED)
    replica = await rig.replica()
    found = {}
    for n in range(150):
        status, found[n] = await ask(rig, "chat" if n % 2 else "talk", text=f"conversation {n}")
        assert (status, said_model(replica)) == (200, found[n])
    spread = Counter(found.values())
    assert set(spread) == {"big", "small"}
    assert 3 <= spread["small"] <= 32, "10% of 150, within four sigma"
    for n in range(0, 150, 10):
        turns = [{"role": "user", "content": f"conversation {n}"}, {"role": "assistant", "content": "yes"},
                 {"role": "user", "content": "go on"}]
        assert (await ask(rig, "chat", messages=turns))[1] == found[n], "the next turn came to another variant"


@pytest.mark.parametrize(("name", "served", "rewritten"), [
    ("qwen", "qwen", False), ("q", "qwen", False), ("qwen:pirate", "qwen:pirate", True),
    ("q:pirate", "qwen:pirate", True)])
async def test_aliases_and_adapters(make_rig: Make, name: str, served: str, rewritten: bool) -> None:
    rig = await make_rig(ROUTED)
    replica = await rig.replica()
    assert await ask(rig, name) == (200, served)
    assert said_model(replica) == (served if rewritten else name)
    assert replica.last.body.startswith(b'{"model": "%b", "messages"' % name.encode()), "members are only added"


async def test_an_adapter_that_is_not_there(make_rig: Make) -> None:
    rig = await make_rig(ROUTED)
    await rig.replica()
    async with rig.post(CHAT | {"model": "qwen:parrot"}) as answer:
        assert answer.status == 404
        assert "qwen:pirate" in (await answer.json())["error"]["message"]
    await rig.record()


@pytest.mark.parametrize(("tenant", "model", "status"), [
    ("few", "chat", 200), ("few", "talk", 200), ("few", "qwen:pirate", 200), ("few", "q:pirate", 200),
    ("few", "qwen", 403), ("few", "q", 403), ("few", "qwen:poet", 403), ("few", "big", 403), ("few", "other", 404),
    ("one", "qwen", 200), ("one", "q:poet", 200), ("one", "chat", 403), ("gone", "qwen", 403)])
async def test_allow_lists(make_rig: Make, tenant: str, model: str, status: int) -> None:
    rig = await make_rig(ROUTED)
    replica = await rig.replica()
    headers = {"authorization": f"Bearer {OF}{tenant}"}
    async with rig.post(CHAT | {"model": model}, headers=headers) as answer:
        assert answer.status == status
        error = (await answer.json()).get("error")
    if error:
        code, allowed = ("model_not_allowed", "chat, qwen:pirate") if status == 403 else ("model_not_found", "")
        assert error["code"] == code
        assert tenant != "few" or (allowed in error["message"] and "poet" not in error["message"].split("Allowed")[-1])
        assert replica.asked == []
    record = await rig.record()
    assert (record.tenant, record.code) == (tenant, status)


@pytest.mark.parametrize("body", [
    b'{"model": "qwen:pirate", "messages": [], "model": "qwen:poet"}',
    b'{"model": "qwen:pirate", "messages": [], "mod\\u0065l": "qwen:poet"}',
    b'{"mod\\u0065l": "qwen:pirate", "messages": [], "\\u006dodel": "qwen:poet"}'])
async def test_an_allow_list_cannot_be_talked_around(make_rig: Make, body: bytes) -> None:
    """The name that counts is the one that the engine will read."""
    rig = await make_rig(ROUTED)
    replica = await rig.replica()
    async with rig.post(body, headers={"authorization": f"Bearer {OF}few"}) as answer:
        assert answer.status == 403
    assert replica.asked == []
    await rig.record()


async def test_the_listing_shows_what_a_tenant_may_use_and_how_it_is(make_rig: Make) -> None:
    rig = await make_rig(ROUTED)
    await of(rig, "small")
    rig.directory.states |= {"big": "starting", "qwen": "scaled_to_zero"}

    async def listed(tenant: str) -> dict[str, str]:
        async with rig.session.get("/v1/models", headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
            return {m["id"]: m["state"] for m in (await answer.json())["data"]}

    assert await listed("few") == {"qwen:pirate": "scaled_to_zero", "chat": "ready"}
    assert await listed("one") == {n: "scaled_to_zero" for n in ("qwen", "qwen:pirate", "qwen:poet")}
    assert (await listed("demo"))["big"] == "starting"
    assert await listed("gone") == {}
    for name, status in (("talk", 200), ("q:pirate", 200), ("qwen", 403), ("nothing", 404)):
        async with rig.session.get(f"/v1/models/{name}", headers={"authorization": f"Bearer {OF}few"}) as answer:
            assert answer.status == status


# -- fallbacks


async def down(rig: Rig) -> None:
    rig.directory.only["first"] = []


async def asleep(rig: Rig) -> None:
    rig.directory.only["first"] = []
    rig.directory.states["first"] = "scaled_to_zero"


async def unreachable(rig: Rig) -> None:
    rig.directory.only["first"] = ["127.0.0.1:1", "carrier:127.0.0.1:1"]


async def broken(rig: Rig) -> None:
    await of(rig, "first", answers(b'{"error": {"message": "dead"}}', 500))


async def dying(rig: Rig) -> None:
    await of(rig, "first", hangs_up)


@pytest.mark.parametrize("trouble", [down, asleep, unreachable, broken, dying])
@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_a_model_in_trouble_is_stood_in_for(make_rig: Make, trouble, body: dict) -> None:
    rig = await make_rig(fleet_file(CHAIN))
    await trouble(rig)
    stand_in = await of(rig, "second", streams(STREAM) if body is STREAMED else answers())
    rig.directory.only["third"] = []
    async with rig.post(body | {"model": "first"}) as answer:
        assert (answer.status, answer.headers["x-flotilla-model"]) == (200, "second")
        assert await answer.read() == (b"".join(SEEN) if body is STREAMED else ANSWER)
    assert said_model(stand_in) == "second"
    record = await rig.record()
    assert (record.model, record.outcome) == ("second", "finished")
    assert rig.directory.woken == (["first"] if trouble is asleep else [])
    if trouble in (down, asleep):
        assert rig.meter.moves == [("first", "second")]


@pytest.mark.parametrize("queue", [0, 1, 256])
async def test_a_full_model_is_stood_in_for_at_once(make_rig: Make, queue: int) -> None:
    seats = {"overload": {"max_in_flight": 1, "max_queue": queue}}
    rig = await make_rig(fleet_file({name: said | seats for name, said in CHAIN.items()}))
    gates = {}
    for name in CHAIN:
        gates[name] = asyncio.Semaphore(0)
        await of(rig, name, streams([event({"model": name}), *STREAM], gates[name]))

    async def one() -> str:
        async with rig.post(STREAMED | {"model": "first"}) as answer:
            await answer.read()
            return answer.headers["x-flotilla-model"]

    calls = []
    for name in CHAIN:
        before = sum(len(r.asked) for r in rig.replicas)
        calls.append(asyncio.ensure_future(one()))
        while sum(len(r.asked) for r in rig.replicas) == before:
            await asyncio.sleep(0.001)
        assert rig.meter.open[name] == 1
    for gate in gates.values():
        for _ in range(9):
            gate.release()
    assert await asyncio.gather(*calls) == list(CHAIN)
    assert [(await rig.record()).outcome for _ in CHAIN] == ["finished"] * 3


async def test_when_all_are_down_the_first_is_named(make_rig: Make) -> None:
    rig = await make_rig(fleet_file(CHAIN))
    async with rig.post(CHAT | {"model": "first"}) as answer:
        assert answer.status == 503
        assert "'first'" in (await answer.json())["error"]["message"]
    assert (await rig.record()).model == "first"


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429])
async def test_what_the_caller_got_wrong_is_not_asked_twice(make_rig: Make, status: int) -> None:
    rig = await make_rig(fleet_file(CHAIN))
    await of(rig, "first", answers(b'{"error": {}}', status))
    other = await of(rig, "second")
    assert await ask(rig, "first") == (status, "first")
    assert other.asked == []


async def test_a_stream_that_has_begun_is_not_begun_again(make_rig: Make) -> None:
    rig = await make_rig(fleet_file(CHAIN))
    await of(rig, "first", streams(STREAM[:1], then="hang_up"))
    other = await of(rig, "second")
    async with rig.post(STREAMED | {"model": "first"}) as answer:
        assert b"replica_failed" in await answer.read()
    assert other.asked == []
    record = await rig.record()
    assert (record.model, record.outcome) == ("first", "failed")


async def test_the_last_ones_error_passes(make_rig: Make) -> None:
    rig = await make_rig(fleet_file(CHAIN))
    for name in CHAIN:
        await of(rig, name, answers(b'{"error": "%b"}' % name.encode(), 500))
    assert await ask(rig, "first") == (500, "third")


async def test_an_adapter_has_no_stand_in(make_rig: Make) -> None:
    models = CHAIN | {"first": {"fallback": ["second"], "adapters": {"a": {"source": "org/a"}}}}
    rig = await make_rig(fleet_file(models))
    other = await of(rig, "second")
    assert await ask(rig, "first") == (200, "second")
    async with rig.post(CHAT | {"model": "first:a"}) as answer:
        assert answer.status == 503
    await rig.record()
    assert len(other.asked) == 1


# -- replicas


@pytest.mark.parametrize("how", ["turns", "session", "cache_key"])
async def test_a_conversation_stays_at_its_replica(make_rig: Make, how: str) -> None:
    rig = await make_rig(fleet_file())
    replicas = [await rig.replica() for _ in range(4)]
    homes = []
    for talk in range(8):
        before = [len(r.asked) for r in replicas]
        for turn in range(5):
            more: dict = {"text": f"hello {talk} {turn}"}
            if how == "turns":
                more = {"messages": [{"role": "system", "content": "Be short."},
                                     {"role": "user", "content": f"talk {talk}"}]
                        + [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"{turn}"}] * turn}
            elif how == "session":
                more["headers"] = {"x-flotilla-session": f"s{talk}"}
            else:
                more["prompt_cache_key"] = f"k{talk}"
            assert (await ask(rig, "qwen", **more))[0] == 200
        grown = [n for n, r in enumerate(replicas) if len(r.asked) > before[n]]
        assert len(grown) == 1, f"conversation {talk} went to replicas {grown}"
        homes += grown
    assert len(set(homes)) > 1, "all conversations at one replica"


async def test_a_conversation_whose_replica_is_full_goes_elsewhere(make_rig: Make) -> None:
    rig = await make_rig(fleet_file({"qwen": {"overload": {"max_in_flight": 1}}}))
    first, second = await rig.replica(hangs), await rig.replica(hangs)
    calls = [asyncio.ensure_future(ask(rig, "qwen", headers={"x-flotilla-session": "s"})) for _ in range(2)]
    await asyncio.wait_for(asyncio.gather(first.arrived.wait(), second.arrived.wait()), 3)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert {(await rig.record()).outcome for _ in calls} == {"aborted"}
