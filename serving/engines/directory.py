"""The replica directory: which replicas of each model take requests now, as Ray Serve tells it.

Ray's controller pushes every change of a deployment's running replicas through its long poll; one client per gateway
process listens for all models, so that looking a replica up costs no call. Only while a model has none, the controller
is asked every two seconds why. May not happen in here: choosing a replica, sending anything to one. One module on
purpose: it leans on Ray's long poll, and tests/engines/test_engine_contract.py fails when that moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Literal

import ray
from ray import serve
from ray.serve._private.common import DeploymentID, DeploymentTargetInfo
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.context import _get_global_client

from serving.engines.names import CARRIER, ENDPOINT, START_S, app_name, deployment_name
from serving.fleet.balance import Replica
from serving.fleet.catalogue import Fleet

log = logging.getLogger(__name__)
State = Literal["ready", "starting", "scaled_to_zero", "unavailable", "failed"]
_LOOK_S = 2.0


def statuses(models: Collection[str]) -> dict[str, str]:
    """Ray Serve's status of the deployments of models, by model; those that Ray does not know are left out.

    `serve.status` would not do: it tells the proxy's options too, and finds its own invalid where there is no proxy.
    """
    client = _get_global_client()
    assert client is not None
    found = {}
    for model in models:
        told = client.get_serve_status(app_name(model)).get_deployment_status(deployment_name(model))
        if told is not None:
            found[model] = str(getattr(told.status, "value", told.status))
    return found


class RayReplicaDirectory:
    """Replicas by model. Belongs to the event loop that called `start`; every method is called from there.

    `failed`: models that did not come up and that Ray does not know.
    """

    def __init__(self, fleet: Fleet, failed: Collection[str] = (), look_s: float = _LOOK_S) -> None:
        self._look_s, self._failed = look_s, frozenset(failed)
        self._at_zero = {name: spec.replicas.min == 0 for name, spec in fleet.models.items()}
        self._replicas: dict[str, tuple[Replica, ...]] = {name: () for name in fleet.models}
        self._states: dict[str, State] = dict.fromkeys(fleet.models, "starting")  # of models without a replica
        self._filled = {name: asyncio.Event() for name in fleet.models}
        self._emptied = asyncio.Event()
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._client: LongPollClient | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin watching; returns at once. Ray must be connected."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._watching())

    async def close(self) -> None:
        """Stop watching. The lists stay as they are."""
        tasks = [task for task in (self._watch, *self._waking.values()) if task is not None]
        self._watch = None
        if self._client is not None:
            self._client.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def replicas(self, model: str) -> Sequence[Replica]:
        """Replicas of `model` that take requests now; the same object until the set changes. Raises: KeyError."""
        return self._replicas[model]

    def state(self, model: str) -> State:
        """How `model` is. Raises: KeyError."""
        if self._replicas[model]:
            return "ready"
        return "failed" if model in self._failed else self._states[model]

    async def wake(self, model: str) -> None:
        """Ask Ray for a replica of a model that has none; returns at once."""
        if self._replicas[model] or model in self._waking:
            return
        task = asyncio.get_running_loop().create_task(self._wake(model))
        self._waking[model] = task
        task.add_done_callback(lambda _: self._waking.pop(model, None))
        if self._states[model] == "scaled_to_zero":
            self._states[model] = "starting"

    async def wait(self, model: str, timeout_s: float) -> bool:
        """Wait until `model` has a replica; whether it has one within the time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._filled[model].wait(), timeout_s)
        return bool(self._replicas[model])

    # -- what Ray tells

    async def _watching(self) -> None:
        while True:
            self._emptied.clear()
            try:
                self._listen()
                if any(not found for model, found in self._replicas.items() if model not in self._failed):
                    await self._look()
            except Exception as error:
                log.warning("Ray Serve does not tell about the fleet's replicas (%s); asking again", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), self._look_s)

    def _listen(self) -> None:
        """Begin to listen, or begin anew where Ray's client has given up on a controller that was gone."""
        if self._client is not None and self._client.is_running:
            return
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        listeners: dict[Any, Any] = {
            (LongPollNamespace.DEPLOYMENT_TARGETS, DeploymentID(deployment_name(name), app_name(name))):
                lambda told, name=name: self._told(name, told)
            for name in self._replicas
        }
        self._client = LongPollClient(controller, listeners, asyncio.get_running_loop(), "flotilla-directory")

    def _told(self, model: str, told: DeploymentTargetInfo) -> None:
        """Ray's new list of a model's running replicas. Those that drain or stop are not in it."""
        found = tuple(sorted(
            (Replica(info.replica_id.unique_id, str(info.replica_metadata[ENDPOINT]),
                     str(info.replica_metadata.get(CARRIER, "")), float(info.replica_metadata.get(START_S, 0)))
             for info in told.running_replicas if ENDPOINT in info.replica_metadata),
            key=lambda replica: replica.replica_id,
        ))
        if found == self._replicas[model]:
            return
        self._replicas[model] = found
        if found:
            self._states[model] = "starting"  # what it is when the last of these goes, until Ray says more
            self._filled[model].set()
        else:
            self._filled[model].clear()
            self._emptied.set()

    async def _look(self) -> None:
        """Ask why models have no replica."""
        asked = [model for model, found in self._replicas.items() if not found and model not in self._failed]
        told = await asyncio.to_thread(statuses, asked)
        for model in asked:
            if not self._replicas[model]:
                self._states[model] = self._state_of(model, told.get(model))

    def _state_of(self, model: str, status: str | None) -> State:
        if status is None:
            return "unavailable"
        if model in self._waking:
            return "starting"
        if self._at_zero[model] and status in ("HEALTHY", "DOWNSCALING"):
            return "scaled_to_zero"
        # HEALTHY: one runs, and its address is on its way to us
        return "starting" if status in ("UPDATING", "UPSCALING", "HEALTHY", "DOWNSCALING") else "unavailable"

    async def _wake(self, model: str) -> None:
        """Let one call wait in Ray's queue: that is what makes Ray scale up from zero."""
        try:
            called = await asyncio.to_thread(self._call, model)
            await called
        except Exception as error:
            log.warning("the model %r could not be woken: %s", model, error)

    @staticmethod
    def _call(model: str) -> Any:
        handle = serve.get_deployment_handle(deployment_name(model), app_name(model))
        if not handle.is_initialized:
            handle._init(_run_router_in_separate_loop=True)  # this thread has no event loop for Ray's router
        return handle.wake.remote()
