"""Replica routing over Ray Serve: where a model's replicas listen.

Ray keeps the list of running replicas; this asks it for one and reads the address that the replica published. One
module on purpose: Ray's own multi-model direct streaming, when it comes, replaces this file and no other.
"""

from __future__ import annotations

import asyncio

from ray import serve

from serving.engines.names import ENDPOINT, app_name, deployment_name
from serving.errors import NoReplica
from serving.fleet.catalogue import Fleet


class RayReplicaDirectory:
    """Chooses replicas through Ray Serve handles. One per event loop."""

    def __init__(self, fleet: Fleet, wait_s: float = 5.0, retry_after_s: int = 5) -> None:
        self._models = tuple(fleet.models)
        self._wait_s, self._retry_after_s = wait_s, retry_after_s
        self._handles: dict[str, serve.handle.DeploymentHandle] = {}

    async def choose(self, model: str) -> str:
        """Address (host:port) of a replica of `model`.

        Raises: NoReplica when Ray knows none within the wait.
        """
        try:
            return await asyncio.wait_for(self._choose(model), self._wait_s)
        except Exception as error:
            raise NoReplica(model, self._retry_after_s) from error

    async def _choose(self, model: str) -> str:
        handle = self._handles.get(model)
        if handle is None:
            handle = serve.get_deployment_handle(deployment_name(model), app_name=app_name(model))
            self._handles[model] = handle
        async with handle.choose_replica(_reserve=False) as chosen:
            return str(chosen.replica_metadata[ENDPOINT])

    async def ready(self) -> dict[str, bool]:
        """Which models have a replica now."""
        async def one(model: str) -> bool:
            try:
                await asyncio.wait_for(self._choose(model), 0.5)
                return True
            except Exception:
                return False

        return dict(zip(self._models, await asyncio.gather(*map(one, self._models)), strict=True))

