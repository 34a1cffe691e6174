"""Adapters added while the gateway runs: known at once, told to the replica, refused when they are gone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway_rig import OF, Rig, fleet_file

from serving.fleet.adapters import Adapter

Make = Callable[[str], Awaitable[Rig]]
FLEET = fleet_file({"qwen": {"lora": {}, "aliases": ["q"], "adapters": {"filed": {"source": "org/f"}}}},
                   tenants={"demo": {}, "shop": {"models": []}})
PIRATE = Adapter("lora_1", "qwen", "pirate", "org/p\u00e4", "/p", 8, "says arr", None, 1.0)


async def ask(rig: Rig, name: str, tenant: str = "demo") -> int:
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    async with rig.post(body, headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
        served, status = answer.headers.get("x-flotilla-model"), answer.status
    record = await rig.record()
    if status == 200:
        assert served == record.adapter == name.replace("q:", "qwen:")
    return status


async def test_from_adding_to_removing(make_rig: Make) -> None:
    rig = await make_rig(FLEET)
    replica = await rig.replica()
    assert await ask(rig, "qwen:pirate") == 404
    rig.added.found = (PIRATE,)
    assert await ask(rig, "q:pirate") == 200
    assert json.loads(replica.last.body)["model"] == "qwen:pirate#lora_1"
    assert json.loads(replica.last.headers["x-flotilla-adapter"]) == {
        "name": "qwen:pirate#lora_1", "source": "org/p\u00e4", "path": "/p"}
    rig.added.found = (replace(PIRATE, adapter_id="lora_2"),)
    assert await ask(rig, "qwen:pirate") == 200
    assert json.loads(replica.last.body)["model"] == "qwen:pirate#lora_2"
    assert await ask(rig, "qwen:filed") == 200
    assert "x-flotilla-adapter" not in replica.last.headers
    rig.added.found = ()
    assert await ask(rig, "qwen:pirate") == 404


async def test_allow_list_and_listing(make_rig: Make) -> None:
    rig = await make_rig(FLEET)
    await rig.replica()
    rig.added.found = (replace(PIRATE, tenants=("shop",)),)
    assert [await ask(rig, "qwen:pirate", tenant) for tenant in ("shop", "demo")] == [200, 403]
    async with rig.session.get("/v1/models", headers={"authorization": f"Bearer {OF}shop"}) as answer:
        (card,) = (await answer.json())["data"]
    assert (card["id"], card["parent"], card["description"]) == ("qwen:pirate", "qwen", "says arr")
    assert await ask(rig, "qwen:pirate#lora_1", "shop") == 404, "engines' names are not for callers"


async def test_an_adapters_requests_stay_at_one_replica(make_rig: Make) -> None:
    rig = await make_rig(FLEET)
    replicas = [await rig.replica() for _ in range(4)]
    rig.added.found = (PIRATE,)
    for n in range(12):
        body = {"model": "qwen:pirate", "messages": [{"role": "user", "content": f"conversation {n}"}]}
        async with rig.post(body) as answer:
            assert answer.status == 200
        await rig.record()
    assert sorted(len(r.asked) for r in replicas) == [0, 0, 0, 12]
