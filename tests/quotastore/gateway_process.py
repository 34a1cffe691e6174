"""A gateway's desk in a process of its own: `python gateway_process.py REQUESTS LIMIT`.

The first line of standard input says where the store is, a Redis URL or the path of a book; at the second one it asks
for all its requests and prints how many were let through.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from desk_rig import WHO, Truth, ask, limits, used

from serving.errors import RateLimited
from serving.fleet.demand import Estimator, ModelFacts
from serving.fleet.roster import Roster
from serving.fleet.specs import TenantSpec
from serving.quotastore.client import BookClient
from serving.quotastore.desk import Desk
from serving.quotastore.redis import RedisStore


async def main(where: str, name: str, requests: int, limit: int) -> None:
    """Ask side by side, twenty at a time."""
    patience_s = 30.0  # exactness is what is looked at, on machines that have other things to do
    store = RedisStore(where, "shared", patience_s) if "://" in where else BookClient(Path(where), patience_s)
    roster = Roster({"shop": TenantSpec(limits=limits(requests_per_minute=limit))})
    desk = Desk(store, Truth(), roster, {"qwen": Estimator(ModelFacts(2048, 1.0, 0.01, 3_600_000_000, 0.0))}, {}, 4,
                False)
    await desk.start()
    admitted = 0

    async def some(first: int) -> None:
        nonlocal admitted
        for number in range(first, requests, 20):
            request_id = f"{name}-{number}"
            try:
                await desk.admit(request_id, WHO, "qwen", ask())
            except RateLimited:
                continue
            admitted += 1
            desk.settle(request_id, used())

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*map(some, range(20)))
    await desk.close()
    print(admitted, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.readline().strip(), str(os.getpid()), int(sys.argv[1]), int(sys.argv[2])))
