"""The ledger as gateways use it: a keyring that follows revocations and tenants, a writer that no request waits for."""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
import time
from collections import deque
from typing import Literal

from serving.errors import InvalidKey, KeysUnavailable, LedgerError, SpoolFull
from serving.fleet.records import RequestRecord
from serving.fleet.roster import Roster
from serving.fleet.specs import TenantSpec
from serving.fleet.tenants import ApiKey, Principal, digest
from serving.ledger import keys, tenants
from serving.ledger.durable import Clock, Outlet
from serving.ledger.merging import Takes
from serving.ledger.spool import Spool, SpoolStats
from serving.ledger.store import Ledger

log = logging.getLogger(__name__)
_PATIENCE_S = 0.5  # that a request with a known key waits for the database
_INBOX = 20_000  # records in memory, about 10 MB: seconds of the busiest gateway
_HAND = 2_000  # records in one transaction
_USED_S = 10.0  # between notes of when keys were used
_EFFORT_S, _LAST_EFFORT_S = 1.0, 5.0  # for what waits: each time, and before the end


class LedgerKeyring:
    """Keys from the ledger, read again when they are older than `max_age_s` or a key is not known.

    A key that is not known waits until it may be looked up, so that a new one opens with its first request. While the
    database is away or hangs, the keys that are known stay good and wait for nothing.
    """

    def __init__(self, ledger: Ledger, pepper: bytes, max_age_s: float = 2.0, miss_age_s: float = 0.5,
                 roster: Roster | None = None) -> None:
        """`roster`: gets the tenants with each reading, once the ledger has any."""
        self._ledger, self._pepper, self._roster = ledger, pepper, roster
        self._used: dict[str, float] = {}  # by id, Unix seconds, not yet noted
        self._noted_at = time.monotonic()
        self._max_age_s, self._miss_age_s = max_age_s, miss_age_s
        self._known: dict[str, ApiKey] = {}
        self._principals: dict[str, Principal] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._away = False  # the last reading failed, or takes too long

    async def principal(self, key: str) -> Principal:
        """Who this key belongs to. Raises: InvalidKey, KeysUnavailable."""
        hashed = digest(key, self._pepper)
        await self._refresh(self._max_age_s, _PATIENCE_S if hashed in self._known else None)
        if hashed not in self._known:  # it may be new: read again, but no more often than every `miss_age_s`
            await asyncio.sleep(max(0.0, self._read_at + self._miss_age_s - time.monotonic() + 0.001))
            await self._refresh(self._miss_age_s, None)
        found = self._known.get(hashed)
        if found is None:
            raise InvalidKey("this API key is not known here")
        if not hmac.compare_digest(found.digest, hashed):  # of keyed hashes the lookup tells nothing either
            raise InvalidKey("this API key is not known here")
        if not found.usable:
            raise InvalidKey(f"the API key {found.prefix}… has been revoked")
        now = time.time()
        if found.expired(now):
            raise InvalidKey(f"the API key {found.prefix}… has expired")
        self._used[found.key_id] = now
        return self._principals[hashed]

    async def close(self) -> None:
        """Note when keys were last used."""
        await asyncio.to_thread(self._note)

    async def _refresh(self, max_age_s: float, patience_s: float | None) -> None:
        """Read the keys if they are older than that, together with whoever else wants to."""
        if time.monotonic() - self._read_at <= max_age_s:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        reading = self._reading  # by the time that this one is over, another may have begun
        if patience_s is not None and self._away:
            return
        done, _ = await asyncio.wait({reading}, timeout=patience_s)
        if done:
            reading.result()
        else:
            self._away = True
            log.warning("reading the keys takes long; the ones known stay in use")

    async def _read(self) -> None:
        try:
            found, now_tenants = await asyncio.to_thread(self._read_all)
        except LedgerError as error:
            self._away = True
            if self._read_at == float("-inf"):
                raise KeysUnavailable("the keys cannot be read just now; try again") from error
            log.warning("keys cannot be read (%s); the ones known stay in use", error)
        else:
            self._known, self._away = {k.digest: k for k in found}, False
            before = self._principals  # the same object while nothing has changed, so that what hangs on it stays
            new = {k.digest: k.principal() for k in found}
            self._principals = {d: before[d] if before.get(d) == p else p for d, p in new.items()}
            if self._roster is not None and now_tenants:
                self._roster.replace(now_tenants)
        self._read_at = now = time.monotonic()
        if now - self._noted_at >= _USED_S and not self._away and (self._noting is None or self._noting.done()):
            self._noted_at = now  # beside the reading, which no writer may hold up
            self._noting = asyncio.create_task(asyncio.to_thread(self._note))

    def _read_all(self) -> tuple[list[ApiKey], dict[str, TenantSpec]]:
        return keys.all_keys(self._ledger), tenants.all_tenants(self._ledger) if self._roster is not None else {}

    def _note(self) -> None:
        used, self._used = self._used, {}
        try:
            keys.note_used(self._ledger, used)
        except LedgerError as error:
            log.warning("when keys were used is not noted (%s)", error)
            self._used = used | self._used


class LedgerRecords:
    """Takes request records without ever keeping a request waiting; two threads bring them to the ledger.

    One looks after what has come in: it hands it to the other, which writes to the database, or puts it into the spool
    when the database is away or busy. So memory stays flat however long the database hangs. When the spool is full,
    `when_full` says whether requests are to be refused (`accepting`) or served without a row. Rows of requests that
    were let in before have 5% more than the spool's limit. What finds no room at all is counted as unmetered.
    A process that is killed loses what came in the last `every_s` seconds. `clock`: seconds, monotonic.
    """

    def __init__(
        self, ledger: Takes, spool: Spool, when_full: Literal["refuse", "serve_unmetered"] = "refuse",
        every_s: float = 0.2, clock: Clock = time.monotonic,
    ) -> None:
        self._spool, self._refuses, self._every_s = spool, when_full == "refuse", every_s
        self._reserve_bytes = spool.limit_bytes // 20 if self._refuses else 0
        self._outlet = Outlet(ledger, spool, clock)
        self._inbox: deque[RequestRecord] = deque()
        self._hand: list[RequestRecord] = []  # what the database is being given
        self._handed, self._stop = threading.Event(), threading.Event()
        self._unmetered, self._lock = 0, threading.Lock()
        self._collector = threading.Thread(target=self._collect, name="ledger-records", daemon=True)
        self._writer = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._collector.start()
        self._writer.start()

    def put(self, record: RequestRecord) -> None:
        """Keep a record. Never blocks, never raises."""
        if len(self._inbox) < _INBOX:
            self._inbox.append(record)
        else:  # neither the disk nor the database takes anything
            self._lose(1)

    @property
    def full(self) -> bool:
        """Whether there is no room for further records."""
        return self._spool.full or len(self._inbox) > _INBOX // 2

    @property
    def accepting(self) -> bool:
        """Whether requests may be let in."""
        return not (self._refuses and self.full)

    @property
    def unmetered(self) -> int:
        """How many records were given up because there was no room for them."""
        return self._unmetered

    def stats(self) -> SpoolStats:
        """What waits on disk, and what was given up."""
        return SpoolStats(self._spool.size_bytes, self._spool.entries, self._unmetered)

    def close(self, timeout_s: float = 10.0) -> None:
        """Bring what is left to the database, or to the spool where the next process finds it, and end the threads."""
        until = time.monotonic() + timeout_s
        self._stop.set()
        self._collector.join(timeout_s)
        self._handed.set()
        self._writer.join(max(0.0, until - time.monotonic()))
        for record in self._take_back():  # the database hangs; a row that it takes yet is there once
            self._keep(record)
        self._spool.close()

    # -- the collector's thread

    def _collect(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look_after()
        self._look_after()

    def _look_after(self) -> None:
        try:
            if self._spool.disk_failed:
                self._spool.probe()
            batch = [self._inbox.popleft() for _ in range(len(self._inbox))]
            if batch and not self._hand and self._spool.empty and self._outlet.tries:
                self._hand = batch[:_HAND]
                del batch[:_HAND]
                self._handed.set()
            for at, record in enumerate(batch):
                if not self._keep(record):  # the disk fails: what is in memory may outlast that
                    self._inbox.extendleft(reversed(batch[at:]))
                    break
        except Exception:  # were this thread to end, every later record would be lost
            log.exception("request records wait in memory")

    def _keep(self, record: RequestRecord) -> bool:
        """Put a record into the spool, or give it up when that is full. Returns: False when the disk fails."""
        try:
            self._spool.append(record, self._reserve_bytes)
        except SpoolFull as error:
            if self._spool.disk_failed and not self._stop.is_set():
                return False
            self._lose(1, error)
        except Exception as error:  # it cannot be encoded, or the spool is closed
            self._lose(1, error)
        return True

    def _lose(self, count: int, why: Exception | None = None) -> None:
        with self._lock:
            self._unmetered += count
            first = self._unmetered == count
        if first:
            log.error("requests go unmetered (%s)", why or "neither the disk nor the database takes their records")

    # -- the writer's thread

    def _write(self) -> None:
        while not (self._stop.is_set() and not self._collector.is_alive()):
            self._handed.wait(self._every_s)
            self._handed.clear()
            self._bring(_EFFORT_S, self._outlet.tries)
        self._bring(_LAST_EFFORT_S, True)

    def _take_back(self) -> list[RequestRecord]:
        """What is in the writer's hands, which are empty then."""
        with self._lock:
            hand, self._hand = self._hand, []
        return hand

    def _bring(self, effort_s: float, tries: bool) -> None:
        try:
            if self._hand:
                tries = self._outlet.write(self._hand)
                rest = self._take_back()
                for record in () if tries else rest:
                    if not self._keep(record):
                        self._inbox.append(record)
            if tries:
                self._outlet.flush(effort_s)
        except Exception:  # were this thread to end, nothing more would reach the database
            log.exception("request records wait for the ledger")
