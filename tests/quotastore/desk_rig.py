"""Desks over stores that tests can take away, and a ledger's side that tests write themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timed_stores import Clock

from serving.errors import LedgerError
from serving.fleet.demand import Ask, Estimator, ModelFacts
from serving.fleet.limits import Limit, LimitsSpec
from serving.fleet.records import Tokens
from serving.fleet.roster import Roster
from serving.fleet.specs import TenantSpec
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Used
from serving.quotastore.base import Store, StoreAway
from serving.quotastore.desk import Desk
from serving.quotastore.own import OwnBook

WHO = Principal("shop", "key_1")
FACTS = ModelFacts(2048, 1.0, 0.01, 3_600_000_000, 0.0)  # a second costs $0.001


@dataclass(frozen=True)
class Charged:
    used: Used
    running: bool = False


@dataclass
class Truth:
    """What the ledger would say."""

    spent_nanousd: int = 0
    known: dict[str, Charged] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def spent(self, limit: Limit, now: float) -> int:
        self.asked += 1
        if self.away:
            raise LedgerError("the ledger is away")
        return self.spent_nanousd

    async def charged(self, request_ids: Sequence[str]) -> Mapping[str, Charged]:
        if self.away:
            raise LedgerError("the ledger is away")
        return {name: self.known[name] for name in request_ids if name in self.known}


class Fragile:
    """A store that is away while `away` is true."""

    def __init__(self, store: Store) -> None:
        self.store, self.away = store, False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)

        async def ask(*arguments: Any) -> Any:
            if self.away:
                raise StoreAway("the store is away")
            return await real(*arguments)

        return ask


def limits(**named: Any) -> LimitsSpec:
    return LimitsSpec.model_validate(named)


def desk(spec: LimitsSpec, store: Any = None, truth: Truth | None = None, share: int = 1, fails_open: bool = False,
         clock: Clock | None = None, **more: Any) -> Desk:
    """A desk for the tenant `shop` with these limits."""
    roster = Roster({"shop": TenantSpec(limits=spec, **more), "other": TenantSpec()})
    clock = clock or Clock()
    return Desk(store or OwnBook(clock), truth or Truth(), roster, {"qwen": Estimator(FACTS)}, {}, share, fails_open,
                clock)


def ask(completion: int | None = 10, size: int = 40, **more: Any) -> Ask:
    return Ask(size, completion, **more)


def used(prompt: int = 5, completion: int = 7, nanousd: int = 1_000) -> Used:
    return Used(Tokens(prompt, 0, completion), nanousd)


async def eventually(true: Callable[[], Any], within_s: float = 3.0) -> None:
    """Until something holds."""
    async with asyncio.timeout(within_s):
        while not (found := true()) if not asyncio.iscoroutinefunction(true) else not (found := await true()):
            await asyncio.sleep(0.005)
    assert found
