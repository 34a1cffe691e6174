"""`flotilla bench admission`: what limits add to a request, by where they are counted.

The gateway's own desk is asked, over the same stores as in a fleet: a book in this process, the fleet's book in a
process of its own behind a Unix socket (what a fleet on one machine has), and Redis. Each request reserves and settles
on all kinds of counters at once. May not happen in here: HTTP, engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.bench.book import BookProcess
from serving.bench.children import free_port
from serving.bench.figures import percentile
from serving.bench.gateway import Say, machine
from serving.errors import ConfigError, StartFailed, did_you_mean
from serving.fleet.demand import Ask, Estimator, ModelFacts
from serving.fleet.limits import Limit, LimitsSpec
from serving.fleet.records import Tokens
from serving.fleet.roster import Roster
from serving.fleet.specs import TenantSpec
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Used
from serving.quotastore.base import Store
from serving.quotastore.client import BookClient
from serving.quotastore.desk import Charged, Desk
from serving.quotastore.own import OwnBook

TARGET_MS = {"fleet": 0.3, "redis": 1.0}  # p50, one request at a time
STORES = {"own": "a book in the gateway's own process", "fleet": "the fleet's book, a process behind a Unix socket",
          "redis": "Redis, by one script"}
_FACTS = ModelFacts(32_768, 1.0, 0.02, 3_000_000_000, 10.0)
_TENANTS = 8
_WIDE = 10**9
_TENANT = LimitsSpec.model_validate({
    "requests_per_minute": _WIDE, "tokens_per_minute": _WIDE, "concurrent_requests": 10_000,
    "budget_per_day": {"soft_usd": 900_000, "hard_usd": 1_000_000}, "budget_per_month": {"hard_usd": 1_000_000}})
_KEY = LimitsSpec.model_validate({"requests_per_minute": _WIDE, "completion_tokens_per_minute": _WIDE})
_START_S = 10.0


@dataclass(frozen=True)
class AdmissionPlan:
    """What to measure. `together`: requests that ask at once; `redis`: a server's URL, empty for one of its own."""

    stores: tuple[str, ...]
    requests: int = 4_000
    together: tuple[int, ...] = (1, 32)
    rounds: int = 3
    redis: str = ""


class _Nothing:
    """A ledger in which no one has spent anything."""

    async def spent(self, limit: Limit, now: float) -> int:
        """Nothing."""
        return 0

    async def charged(self, request_ids: Sequence[str]) -> Mapping[str, Charged]:
        """No one."""
        return {}


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """These stores, or all. Raises: ConfigError."""
    for name in names:
        if name not in STORES:
            raise ConfigError(f"there is no store {name!r}; {did_you_mean(name, STORES, 'there are')}")
    return tuple(s for s in STORES if not names or s in names)


def measure(plan: AdmissionPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report."""
    import uvloop

    return uvloop.run(_measure(plan, say))


async def _measure(plan: AdmissionPlan, say: Say) -> dict[str, Any]:
    rows, failed = [], []
    with tempfile.TemporaryDirectory(prefix="flo-") as folder:
        for name in plan.stores:
            try:
                async with _store(name, Path(folder), plan.redis) as store:
                    for together in plan.together:
                        say(f"{STORES[name]}, {together} at once")
                        rows.append(await _rounds(name, store, together, plan))
            except (StartFailed, OSError) as error:
                failed.append({"name": name, "reason": str(error)})
    counters = sum(1 for spec in (_TENANT, _KEY) for name in type(spec).model_fields if getattr(spec, name) is not None)
    return {"machine": machine(), "counters": counters, "requests": plan.requests, "rounds": plan.rounds,
            "target_ms": TARGET_MS, "stores": rows, "failed": failed}


async def _rounds(name: str, store: Store, together: int, plan: AdmissionPlan) -> dict[str, Any]:
    """The middle of some rounds."""
    found = [await _round(store, together, plan.requests) for _ in range(plan.rounds)]
    found.sort(key=lambda took: percentile(took, 50))
    middle = found[len(found) // 2]
    row: dict[str, Any] = {"store": name, "together": together}
    row |= {f"p{q}_ms": round(percentile(middle, q) * 1e3, 4) for q in (50, 90, 99)}
    row["spread_p50_ms"] = [round(percentile(f, 50) * 1e3, 4) for f in (found[0], found[-1])]
    if together == 1 and name in TARGET_MS:
        row["within"] = row["p50_ms"] <= TARGET_MS[name]
    return row


async def _round(store: Store, together: int, requests: int) -> list[float]:
    """Seconds that each admission took."""
    tenants = [f"t{n}" for n in range(_TENANTS)]
    roster = Roster({tenant: TenantSpec(limits=_TENANT) for tenant in tenants})
    desk = Desk(store, _Nothing(), roster, {"m": Estimator(_FACTS)}, {}, 1, False)
    who = [Principal(tenant, f"key_{tenant}", limits=_KEY) for tenant in tenants]
    took: list[float] = []
    run = time.monotonic_ns()

    async def one(number: int) -> None:
        request_id, began = f"{run}-{number}", time.perf_counter()
        await desk.admit(request_id, who[number % _TENANTS], "m", Ask(2_000, 256))
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
        desk.settle(request_id, Used(Tokens(500, 0, 200), 1_000))

    async def some(first: int) -> None:
        for number in range(first, requests, together):
            await one(number)

    await desk.start()
    try:
        for number in range(-_TENANTS, 0):  # budgets are read from the ledger once
            await one(number)
        took.clear()
        await asyncio.gather(*map(some, range(together)))
    finally:
        await desk.close(ends_store=False)
    return took


@contextlib.asynccontextmanager
async def _store(name: str, folder: Path, redis: str) -> AsyncIterator[Store]:
    """A store, and whatever it needs. Raises: StartFailed."""
    if name == "own":
        yield OwnBook()
        return
    with contextlib.ExitStack() as ends:
        store: Store
        if name == "fleet":
            path = folder / "book.sock"
            ends.callback(BookProcess(path).stop)
            store = BookClient(path)
        else:
            from serving.quotastore.redis import RedisStore  # its client would be imported by every command

            store = RedisStore(redis or _redis(folder, ends), f"bench-{time.monotonic_ns()}")
        try:
            yield store
        finally:
            await store.close()


def _redis(folder: Path, ends: contextlib.ExitStack) -> str:
    """The URL of a Redis of its own."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise StartFailed("there is no redis-server (Debian: apt-get install redis-server), and FLOTILLA_QUOTA_URL is "
                          "not set")
    port = free_port()
    child = subprocess.Popen([program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no",
                              "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends.callback(_end, child)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return f"redis://127.0.0.1:{port}/0"
        time.sleep(0.02)
    raise StartFailed("redis-server did not start")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
