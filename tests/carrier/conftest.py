"""A carrier between two ends on a loopback socket, watched for what asyncio only logs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest_asyncio
from carrier_rig import Carrier


@pytest_asyncio.fixture
async def carrier() -> AsyncIterator[Carrier]:
    """Nothing may be left: no task, no stream, no exception that no one has read."""
    logged: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(str(context)))
    made = await Carrier().start()
    yield made
    await made.close()
    gc.collect()
    await asyncio.sleep(0)
    assert logged == []
