"""Responses that a replica keeps: found where they were made, by those whose they are."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from gateway_rig import OF, Rig, fleet_file
from yarl import URL

Make = Callable[[str], Awaitable[Rig]]
ROUTED = fleet_file({"big": {}, "small": {}}, routes={"chat": {"variants": {"big": 50, "small": 50}}})


async def stores(rig: Rig, count: int = 3) -> list:
    """Replicas that keep responses by id, as vLLM's do."""
    made = []
    for _ in range(count):
        kept: dict[str, str] = {}

        async def run(exchange, kept=kept) -> None:
            if exchange.path == "/v1/responses":
                asked = json.loads(exchange.body)
                if asked.get("previous_response_id", next(iter(kept), "")) not in {*kept, ""}:
                    return await exchange.whole(404, b'{"error": {"message": "not here"}}')
                kept[asked["request_id"]] = asked["model"]
                return await exchange.whole(200, json.dumps({"id": asked["request_id"]}).encode())
            name = exchange.path.partition("?")[0].split("/")[3]
            found = 200 if name in kept else 404
            await exchange.whole(found, json.dumps({"id": name, "path": exchange.path}).encode())

        made.append(await rig.replica(run))
    return made


async def respond(rig: Rig, model: str = "qwen", tenant: str = "demo", **more: object) -> tuple[int, dict]:
    async with rig.post({"model": model, "input": "hi"} | more, "/v1/responses",
                        headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
        found = await answer.json()
    await rig.record()
    return answer.status, found


async def about(rig: Rig, path: str, method: str = "GET", tenant: str = "demo") -> tuple[int, dict]:
    async with rig.session.request(method, path, headers={"authorization": f"Bearer {OF}{tenant}"}) as answer:
        return answer.status, await answer.json()


async def test_a_stored_response_is_found_where_it_was_made(make_rig: Make) -> None:
    rig = await make_rig(fleet_file(tenants={"demo": {}, "other": {}}))
    replicas = await stores(rig)
    for n in range(12):
        status, made = await respond(rig, prompt_cache_key=f"{n}")
        assert status == 200
        name = made["id"]
        assert await about(rig, f"/v1/responses/{name}") == (200, {"id": name, "path": f"/v1/responses/{name}"})
        status, found = await about(rig, f"/v1/responses/{name}?stream=false&include=x")
        assert (status, found["path"]) == (200, f"/v1/responses/{name}?stream=false&include=x")
        status, found = await about(rig, f"/v1/responses/{name}/cancel", "POST")
        assert (status, found["path"]) == (200, f"/v1/responses/{name}/cancel")
        assert (await respond(rig, prompt_cache_key=f"else {n}", previous_response_id=name))[0] == 200
    assert sum(bool(r.asked) for r in replicas) > 1
    asked = sum(len(r.asked) for r in replicas)
    for path in (f"/v1/responses/{name}", f"/v1/responses/{name}?x=y"):
        assert (await about(rig, path, tenant="other"))[0] == 404, "another tenant's"
    assert (await about(rig, f"/v1/responses/{name}/cancel", "POST", "other"))[0] == 404
    assert (await respond(rig, tenant="other", previous_response_id=name))[0] == 404
    assert sum(len(r.asked) for r in replicas) == asked, "no replica was even asked"


async def test_a_stored_response_goes_with_its_replica(make_rig: Make) -> None:
    rig = await make_rig(fleet_file())
    await stores(rig, 1)
    name = (await respond(rig))[1]["id"]
    rig.directory.addresses.clear()
    await stores(rig, 1)
    status, found = await about(rig, f"/v1/responses/{name}")
    assert (status, found["error"]["code"]) == (404, "response_not_found")
    assert name[:40] in found["error"]["message"], "it names the id that was asked for"
    assert (await respond(rig, previous_response_id=name))[0] == 404


async def test_a_route_finds_the_variant_that_made_a_response(make_rig: Make) -> None:
    rig = await make_rig(ROUTED)
    await stores(rig, 4)
    for n, address in enumerate(list(rig.directory.addresses)):
        rig.directory.only.setdefault(("big", "small")[n % 2], []).append(address)
    for n in range(20):
        made = (await respond(rig, "chat", input=f"talk {n}"))[1]
        status, next_ = await respond(rig, "chat", input=f"another {n}", previous_response_id=made["id"])
        assert status == 200
        assert (await respond(rig, "chat", input="third", previous_response_id=next_["id"]))[0] == 200


@pytest.mark.parametrize("name", ["x", "resp_", "resp_0123456789abcdef_flo-1", "resp_%0d%0ax:%20y", "{}%0d%0ax:%20y",
                                  "{}%20HTTP/1.1%0d%0ax-flotilla-tenant:%20other%0d%0ay:", "{}%2f..%2f..%2fmetrics",
                                  "{}%3fx=y", "{}%ff", "{}%00", "{}" + "a" * 200])
async def test_ids_that_are_none_never_reach_a_replica(make_rig: Make, name: str) -> None:
    """An id becomes part of a path at the replica, where line ends would be headers of the caller's own."""
    rig = await make_rig(fleet_file())
    replicas = await stores(rig, 1)
    made = (await respond(rig))[1]["id"]
    for more, method in (("", "GET"), ("/cancel", "POST")):
        url = URL(f"{rig.url}/v1/responses/{name.format(made)}{more}", encoded=True)
        async with rig.session.request(method, url) as answer:
            assert answer.status == 404
    assert len(replicas[0].asked) == 1
