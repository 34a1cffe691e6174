"""The replica directory against a Ray that is played: lists arrive by push, and a model without replicas says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engines import directory as module
from serving.engines.directory import RayReplicaDirectory
from serving.engines.names import ENDPOINT, deployment_name


class Ray:
    """What the directory asks Ray: the controller's long poll, the status, a handle."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.deployments: dict[str, Any] = {}
        self.calls: list[str] = []
        self.woken = asyncio.Event()
        self.looks = 0

    def client(self, controller: Any, listeners: dict[Any, Any], loop: Any, name: str) -> Any:
        made = SimpleNamespace(is_running=True, listeners=listeners, stop=lambda: None)
        self.clients.append(made)
        return made

    def statuses(self, models: Any) -> dict[str, str]:
        self.looks += 1
        return {m: d for m, d in self.deployments.items() if m in models}

    def push(self, model: str, *replicas: str) -> None:
        """The controller tells of a model's running replicas."""
        infos = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=r), replica_metadata={ENDPOINT: f"{r}:1"})
                 for r in replicas]
        (tell,) = [f for key, f in self.clients[-1].listeners.items() if key[1].name == deployment_name(model)]
        tell(SimpleNamespace(is_available=True, running_replicas=infos))

    async def call(self, model: str) -> None:
        self.calls.append(model)
        await self.woken.wait()


@pytest.fixture
async def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    played = Ray()
    monkeypatch.setattr(module.ray, "get_actor", lambda *_, **__: None)
    monkeypatch.setattr(module, "LongPollClient", played.client)
    monkeypatch.setattr(module, "statuses", played.statuses)
    monkeypatch.setattr(RayReplicaDirectory, "_call", staticmethod(played.call))
    return played


@pytest.fixture
async def directory(ray: Ray) -> AsyncIterator[RayReplicaDirectory]:
    spec = {name: SimpleNamespace(replicas=SimpleNamespace(min=least)) for name, least in (("a", 1), ("zero", 0))}
    made = RayReplicaDirectory(SimpleNamespace(models=spec), look_s=0.01)  # type: ignore[arg-type]
    await made.start()
    await until(lambda: ray.looks > 0)
    yield made
    await made.close()


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0)


async def test_replicas_are_those_that_ray_tells_of(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.push("a", "two", "one")
    assert [(r.replica_id, r.address) for r in directory.replicas("a")] == [("one", "one:1"), ("two", "two:1")]
    assert (directory.state("a"), directory.replicas("zero")) == ("ready", ())
    ray.push("a", "two")
    assert [r.replica_id for r in directory.replicas("a")] == ["two"]


async def test_the_list_is_the_same_object_until_it_changes(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.push("a", "one", "two")
    before = directory.replicas("a")
    ray.push("a", "two", "one")
    assert directory.replicas("a") is before
    ray.push("a", "three")
    assert directory.replicas("a") is not before


async def test_a_replica_without_an_address_is_none(directory: RayReplicaDirectory, ray: Ray) -> None:
    (tell,) = [f for key, f in ray.clients[-1].listeners.items() if key[1].name == deployment_name("a")]
    info = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r"), replica_metadata={})
    tell(SimpleNamespace(is_available=True, running_replicas=[info]))
    assert directory.replicas("a") == ()


@pytest.mark.parametrize(
    ("model", "found", "state"),
    [
        ("a", None, "unavailable"),
        ("a", "UPDATING", "starting"),
        ("a", "UNHEALTHY", "unavailable"),
        ("a", "HEALTHY", "starting"),
        ("a", "DEPLOY_FAILED", "unavailable"),
        ("zero", "HEALTHY", "scaled_to_zero"),
        ("zero", "DOWNSCALING", "scaled_to_zero"),
        ("zero", "UPSCALING", "starting"),
        ("zero", "UNHEALTHY", "unavailable"),
    ],
)
async def test_a_model_without_replicas_says_why(
    directory: RayReplicaDirectory, ray: Ray, model: str, found: Any, state: str
) -> None:
    if found is not None:
        ray.deployments[model] = found
    looks = ray.looks
    await until(lambda: ray.looks > looks + 1)
    assert directory.state(model) == state


async def test_ray_is_not_asked_while_every_model_has_a_replica(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.push("a", "one")
    ray.push("zero", "two")
    await asyncio.sleep(0.03)  # a look under way ends
    looks = ray.looks
    await asyncio.sleep(0.05)  # five rounds
    assert ray.looks == looks
    ray.push("a")
    await until(lambda: ray.looks > looks)


async def test_waiting_ends_when_a_replica_comes_or_time_is_up(directory: RayReplicaDirectory, ray: Ray) -> None:
    assert not await directory.wait("a", 0.01)
    waiting = asyncio.ensure_future(directory.wait("a", 60))
    await asyncio.sleep(0)
    ray.push("a", "one")
    assert await asyncio.wait_for(waiting, 1)
    assert await asyncio.wait_for(directory.wait("a", 60), 1)
    ray.push("a")
    assert not await directory.wait("a", 0.01)


async def test_waking_asks_once_and_is_starting_from_then_on(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.deployments["zero"] = "HEALTHY"
    await until(lambda: directory.state("zero") == "scaled_to_zero")
    for _ in range(3):
        await directory.wake("zero")
    assert directory.state("zero") == "starting"
    await until(lambda: ray.calls)
    looks = ray.looks
    await until(lambda: ray.looks > looks + 1)
    assert (ray.calls, directory.state("zero")) == (["zero"], "starting")
    ray.woken.set()
    await until(lambda: directory.state("zero") == "scaled_to_zero")  # no replica came of it
    await directory.wake("zero")
    await until(lambda: len(ray.calls) == 2)


async def test_a_model_with_a_replica_is_not_woken(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.push("zero", "one")
    await directory.wake("zero")
    await asyncio.sleep(0)
    assert ray.calls == []


async def test_a_listener_that_gave_up_is_replaced_and_the_lists_stay(directory: RayReplicaDirectory, ray: Ray) -> None:
    ray.push("a", "one")
    ray.clients[-1].is_running = False
    await until(lambda: len(ray.clients) == 2)
    assert [r.replica_id for r in directory.replicas("a")] == ["one"]
    ray.push("a", "two")
    assert [r.replica_id for r in directory.replicas("a")] == ["two"]


async def test_a_ray_that_does_not_answer_is_asked_again(
    directory: RayReplicaDirectory, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def broken(models: Any) -> Any:
        loop.call_soon_threadsafe(failed.set)
        raise RuntimeError("no controller")

    monkeypatch.setattr(module, "statuses", broken)
    await asyncio.wait_for(failed.wait(), 5)
    monkeypatch.setattr(module, "statuses", ray.statuses)
    looks = ray.looks
    await until(lambda: ray.looks > looks)
