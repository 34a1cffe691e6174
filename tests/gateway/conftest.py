"""The gateway under test, started and closed around each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from gateway_rig import Rig


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    made = await Rig().start()
    yield made
    await made.close()
