"""The gateway under test, started and closed around each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from gateway_rig import Rig, fleet_file


@pytest_asyncio.fixture(params=["http", "carrier"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Once for each way to a replica: what callers see must not depend on it."""
    made = await Rig(carried=request.param == "carrier").start()
    yield made
    await made.close()


@pytest_asyncio.fixture(params=["http", "carrier"])
async def make_rig(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Rig]]]:
    """Gateways over fleets of the test's own."""
    made: list[Rig] = []

    async def make(fleet: str) -> Rig:
        made.append(await Rig(fleet=fleet, carried=request.param == "carrier").start())
        return made[-1]

    yield make
    for rig in made:
        await rig.close()


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Rig]:
    """A gateway with tight limits on what comes in; which way it goes on does not matter."""
    limits = {"max_body_mib": 0.0625, "max_header_kib": 4, "body_timeout_s": 0.2, "write_timeout_s": 5}
    rig = await Rig(fleet=fleet_file(gateway=limits), carried=True).start()
    yield rig
    await rig.close()
