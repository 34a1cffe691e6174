"""What a gateway asks about limits: may this request begin, and here is what it has used.

Knows the limits of the moment, asks the store that all gateways share, and stays honest when things fail: what could
not be told is told later; a request whose answer did not say what it used settles to what the ledger says; so does one
whose gateway has died. While the store is away, requests are refused, or counted here within this gateway's share.
May not happen in here: HTTP, counting (`fleet.quotas`), a database (`Truth` is the ledger's side).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from serving.errors import FlotillaError, LedgerError, QuotasUnavailable
from serving.fleet.demand import Ask, Demand, Estimator
from serving.fleet.limits import Limit, LimitsSpec, Scoped
from serving.fleet.quotas import Answer, Book, Granted, Lease, Refused, Unseeded, Want
from serving.fleet.roster import Roster
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Pass, Used, granted, parts, parts_by_name, refusal, wants
from serving.quotastore.base import Settlement, Store, StoreAway

log = logging.getLogger(__name__)
_AGAIN_S = 0.5  # after which a store that was away is asked once more
_RENEW_S = 10.0
_TRUTH_S = 0.5  # between looks into the ledger for what answers did not say
_NEVER_S = 10.0  # without a charge in the ledger after so long, a request has never reached an engine
_GIVE_UP_S = 120.0  # the ledger does not say: what was reserved counts as used
_REAP_S = 5.0
_UNSENT = 200_000
_BATCH = 500


class Charged(Protocol):
    """What the ledger knows of a request. `running`: more may come."""

    @property
    def used(self) -> Used:
        """What it has used so far."""

    @property
    def running(self) -> bool:
        """Whether that may change."""


class Truth(Protocol):
    """The ledger's side. Both raise LedgerError."""

    async def spent(self, limit: Limit, now: float) -> int:
        """Nano-USD that ended requests of a money limit's period have been charged with."""
        ...

    async def charged(self, request_ids: Sequence[str]) -> Mapping[str, Charged]:
        """What is known of requests; those that no replica has charged are missing."""
        ...


@dataclass
class _Open:
    """A request under way, or one that has ended and is waited for to be known. `ended_at`: monotonic seconds."""

    limits: tuple[Limit, ...]
    wants: tuple[Want, ...]
    demand: Demand
    ask: Ask
    estimator: Estimator
    ended_at: float | None = None


class Desk:
    """The port `serving.gateway.ports.Quotas`. One per gateway and event loop."""

    def __init__(self, store: Store, truth: Truth, roster: Roster, models: Mapping[str, Estimator],
                 model_limits: Mapping[str, LimitsSpec], share: int, fails_open: bool,
                 clock: Callable[[], float] = time.time) -> None:
        """`model_limits`: of each model, over all tenants. `share`: how many gateways divide a limit while the store
        is away. `clock`: Unix seconds; says which day it is, and times what is counted here."""
        self._store, self._truth, self._roster, self._models = store, truth, roster, models
        self._model_limits, self._share, self._fails_open, self._clock = model_limits, share, fails_open, clock
        self._scopes: dict[tuple[str, str, str], tuple[object, Scoped]] = {}
        self._seen_version = -1
        self._open: dict[str, _Open] = {}
        self._silent: dict[str, _Open] = {}  # ended without saying what they used
        self._unsent: deque[Settlement] = deque()
        self._local = Book()
        self._known: dict[str, int] = {}  # nano-USD of money counters, as last seen
        self._away_until = float("-inf")
        self._was_away = False
        self._bell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    async def start(self) -> None:
        """Begin to look after what is under way. Call it in the event loop that serves."""
        loops = (self._send, self._keep, self._find_out)
        self._tasks = [asyncio.create_task(loop(), name=f"quotas{loop.__name__}") for loop in loops]

    async def close(self, patience_s: float = 2.0, ends_store: bool = True) -> None:
        """Tell the store what can be told, and end. What is left is for other gateways: leases end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self._unsent:
                    self._bell.set()
                    await asyncio.sleep(0.02)
        self._closing = True  # a client that swallows its cancellation must not keep a loop alive
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if ends_store:
            with suppress(StoreAway):
                await self._store.close()

    def concerns(self, who: Principal, model: str) -> bool:
        """Whether anything limits this caller's requests to the model."""
        return bool(self._scoped(who, model))

    async def admit(self, request_id: str, who: Principal, model: str, ask: Ask) -> Pass | None:
        """Reserve what the request may use. None: nothing limits it.

        Raises: RateLimited, RequestTooLarge, BudgetExhausted, QuotasUnavailable.
        """
        scoped = self._scoped(who, model)
        if not scoped:
            return None
        estimator = self._models[model]
        demand = estimator.demand(ask, scoped.max_output_tokens)
        if not scoped.limits:
            return Pass(demand.completion // max(1, demand.answers) if ask.generates and ask.works else None)
        now = self._clock()
        asked, limits = wants(scoped.limits, demand, ask, estimator, now)
        answer = await self._reserve(request_id, asked, limits, now)
        if isinstance(answer, Refused):
            raise refusal(limits[answer.at], asked[answer.at], answer, now)
        assert isinstance(answer, Granted)
        for limit, want, line in zip(limits, asked, answer.lines, strict=True):
            if limit.unit == "usd":
                self._known[want.key] = line.used
        self._open[request_id] = _Open(limits, asked, demand, ask, estimator)
        return granted(limits, asked, answer, demand, ask, now)

    def settle(self, request_id: str, used: Used) -> None:
        """The request is over. Never blocks, never raises; only the first call for an id counts."""
        found = self._open.pop(request_id, None)
        if found is None:
            return
        if used.known:
            self._over(request_id, found, used)
        else:
            found.ended_at = time.monotonic()
            self._silent[request_id] = found

    def _over(self, request_id: str, found: _Open, used: Used) -> None:
        if used.tokens is not None:
            found.estimator.seen(found.ask.body_bytes, found.ask.answers, used.tokens, used.nanousd)
        told = parts(found.limits, found.wants, used)
        if self._was_away:
            self._local.settle(request_id, told, self._clock())
        if len(self._unsent) >= _UNSENT:  # its reservation ends by itself, and the ledger knows the rest
            self._unsent.popleft()
        self._unsent.append((request_id, told))
        self._bell.set()

    def _scoped(self, who: Principal, model: str) -> Scoped:
        if self._seen_version != self._roster.version or len(self._scopes) > 10_000:
            self._scopes.clear()
            self._seen_version = self._roster.version
        known = self._scopes.get((who.tenant, who.key_id, model))
        if known is not None and known[0] is who.limits:
            return known[1]
        tenant = self._roster.get(who.tenant)
        specs: dict[str, LimitsSpec | None] = {
            "tenant": tenant.limits if tenant else None, "key": who.limits,
            "model": self._model_limits.get(model),
            "tenant_model": tenant.model_limits.get(model) if tenant else None}
        scoped = Scoped.of(who.tenant, who.key_id, model, specs)
        self._scopes[who.tenant, who.key_id, model] = (who.limits, scoped)
        return scoped

    # -- the store, or what stands in for it

    async def _reserve(self, request_id: str, asked: tuple[Want, ...], limits: tuple[Limit, ...], now: float) -> Answer:
        if time.monotonic() < self._away_until:
            return await self._offline(request_id, asked, limits, now)
        try:
            answer = await self._store.reserve(request_id, asked)
            if isinstance(answer, Unseeded):
                await self._seed(answer, asked, limits, now)
                answer = await self._store.reserve(request_id, asked)
        except StoreAway as error:
            self._away(error)
            return await self._offline(request_id, asked, limits, now)
        except LedgerError as error:
            raise QuotasUnavailable from error  # what has been spent is not known
        if isinstance(answer, Unseeded):
            raise QuotasUnavailable
        self._back()
        return answer

    async def _seed(self, unknown: Unseeded, asked: tuple[Want, ...], limits: tuple[Limit, ...], now: float) -> None:
        for want, limit in zip(asked, limits, strict=True):
            if want.key in unknown.keys:
                await self._store.seed(want.key, await self._truth.spent(limit, now))

    async def _offline(self, request_id: str, asked: tuple[Want, ...], limits: tuple[Limit, ...],
                       now: float) -> Answer:
        """Within this gateway's share, where the fleet file says so."""
        if not self._fails_open:
            raise QuotasUnavailable
        own: list[Want] = []
        for want, limit in zip(asked, limits, strict=True):
            spent = 0
            if want.kind == "money":
                spent = await self._spent(want.key, limit, now)
                self._local.seed(want.key, spent, now)
            most = max(spent + (want.most - spent) // self._share, spent if want.kind == "money" else 1)
            own.append(Want(want.key, want.kind, most, min(want.amount, most), min(want.least, most)))
        return self._local.reserve(request_id, own, now)

    async def _spent(self, key: str, limit: Limit, now: float) -> int:
        if key not in self._known:
            try:
                self._known[key] = await self._truth.spent(limit, now)
            except LedgerError as error:
                raise QuotasUnavailable from error
        return self._known[key]

    def _away(self, error: StoreAway) -> None:
        self._away_until = time.monotonic() + _AGAIN_S
        if not self._was_away:
            self._was_away = True
            log.warning("%s; limits are %s", error, "each gateway's share" if self._fails_open else "closed")

    def _back(self) -> None:
        self._away_until = float("-inf")
        if self._was_away:
            self._was_away, self._local = False, Book()
            log.warning("the store of counters is back; %d settlements wait for it", len(self._unsent))

    # -- what goes on beside the requests

    async def _send(self) -> None:
        """Bring settlements to the store, in the order in which requests ended."""
        while not self._closing:
            if not self._unsent:
                self._bell.clear()
                await self._bell.wait()
            batch = [self._unsent[n] for n in range(min(_BATCH, len(self._unsent)))]
            try:
                await self._store.settle(batch)
            except StoreAway as error:
                self._away(error)
                await asyncio.sleep(_AGAIN_S)
                continue
            except Exception:  # were this loop to end, nothing would be settled any more
                log.exception("settlements wait")
                await asyncio.sleep(_AGAIN_S)
                continue
            self._back()
            for _ in batch:
                if self._unsent:
                    self._unsent.popleft()

    async def _keep(self) -> None:
        """Renew the leases of what is under way; settle what the dead have left."""
        renewed, reaped = time.monotonic(), time.monotonic()
        while not self._closing:
            await asyncio.sleep(min(_RENEW_S, _REAP_S))
            now = time.monotonic()
            try:
                if now - renewed >= _RENEW_S:
                    renewed = now
                    await self.renew()
                if now - reaped >= _REAP_S:
                    reaped = now
                    await self.reap()
            except StoreAway as error:
                self._away(error)
            except FlotillaError as error:
                log.warning("leases: %s", error)
            except Exception:
                log.exception("leases wait")

    async def renew(self) -> None:
        """Tell the store what is under way. Raises: StoreAway."""
        leases = [Lease(request_id, tuple(w.key for w in one.wants if w.kind == "seats"))
                  for request_id, one in [*self._open.items(), *self._silent.items()]]
        for at in range(0, len(leases), _BATCH):
            await self._store.renew(leases[at : at + _BATCH])

    async def reap(self) -> int:
        """Settle reservations whose gateway is gone, to what the ledger says. Returns how many.

        Raises: StoreAway, LedgerError.
        """
        own = {*self._open, *self._silent, *(request_id for request_id, _ in self._unsent)}
        late = [one for one in await self._store.overdue() if one.request_id not in own]
        if not late:
            return 0
        known = await self._truth.charged([one.request_id for one in late])
        done: list[Settlement] = []
        for one in late:
            charged = known.get(one.request_id)
            if charged is None or not charged.running:
                used = charged.used if charged is not None else Used.nothing()
                done.append((one.request_id, parts_by_name(one.counters, used)))
        if done:
            await self._store.settle(done)
        return len(done)

    async def _find_out(self) -> None:
        """Ask the ledger what requests have used whose answers did not say."""
        while not self._closing:
            await asyncio.sleep(_TRUTH_S)
            if not self._silent:
                continue
            try:
                known = await self._truth.charged(list(self._silent))
            except LedgerError:
                known = None
            except Exception:
                log.exception("the ledger cannot be asked")
                known = None
            self._conclude(known, time.monotonic())

    def _conclude(self, known: Mapping[str, Charged] | None, now: float) -> None:
        for request_id, one in list(self._silent.items()):
            assert one.ended_at is not None
            waited, used = now - one.ended_at, None
            charged = (known or {}).get(request_id)
            if charged is not None and not charged.running:
                used = charged.used
            elif known is not None and charged is None and waited > _NEVER_S:
                used = Used.nothing()
            elif known is None and waited > _GIVE_UP_S:
                used = Used.reserved(one.demand, one.estimator.nanousd(one.demand.prompt, one.demand.completion))
            if used is not None:
                del self._silent[request_id]
                self._over(request_id, one, used)
