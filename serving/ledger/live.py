"""The ledger as live processes use it: a keyring that follows revocations, and a writer that never blocks a request."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque

from serving.errors import InvalidKey, KeysUnavailable, LedgerError
from serving.fleet.records import RequestRecord
from serving.fleet.tenants import ApiKey, Principal, digest
from serving.ledger import keys
from serving.ledger.store import Ledger

log = logging.getLogger(__name__)


class LedgerKeyring:
    """Keys from the ledger, read again when they are older than `max_age_s` or a key is not known.

    A key that is not known waits until it may be looked up, so that a new one opens with its first request.
    """

    def __init__(self, ledger: Ledger, pepper: bytes, max_age_s: float = 2.0, miss_age_s: float = 0.5) -> None:
        self._ledger, self._pepper = ledger, pepper
        self._max_age_s, self._miss_age_s = max_age_s, miss_age_s
        self._known: dict[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def principal(self, key: str) -> Principal:
        """Who this key belongs to. Raises: InvalidKey, KeysUnavailable."""
        hashed = digest(key, self._pepper)
        await self._refresh(self._max_age_s)
        if hashed not in self._known:  # it may be new: read again, but no more often than every `miss_age_s`
            await asyncio.sleep(max(0.0, self._read_at + self._miss_age_s - time.monotonic() + 0.001))
            await self._refresh(self._miss_age_s)
        found = self._known.get(hashed)
        if found is None:
            raise InvalidKey("this API key is not known here")
        if not found.usable:
            raise InvalidKey(f"the API key {found.prefix}… has been revoked")
        return Principal(found.tenant, found.key_id)

    async def _refresh(self, max_age_s: float) -> None:
        if time.monotonic() - self._read_at <= max_age_s:
            return
        async with self._reading:
            if time.monotonic() - self._read_at <= max_age_s:
                return
            try:
                found = await asyncio.to_thread(keys.all_keys, self._ledger)
                self._known = {k.digest: k for k in found}
            except LedgerError as error:
                if self._read_at == float("-inf"):
                    raise KeysUnavailable("the keys cannot be read just now; try again") from error
                log.warning("keys cannot be read (%s); the ones known stay in use", error)
            self._read_at = time.monotonic()


class LedgerRecords:
    """Writes request records in batches from a thread of its own; what cannot be written is kept and tried again."""

    def __init__(self, ledger: Ledger, every_s: float = 0.2) -> None:
        self._ledger, self._every_s = ledger, every_s
        self._waiting: deque[RequestRecord] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-records", daemon=True)
        self._thread.start()

    def put(self, record: RequestRecord) -> None:
        """Keep a record. Never blocks."""
        self._waiting.append(record)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is left and end the thread."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()
        self._write()

    def _write(self) -> None:
        batch = list(self._waiting)
        if not batch:
            return
        try:
            self._ledger.write_requests(batch)
        except Exception as error:  # were this thread to end, every later record would be lost
            log.warning("%d records wait for the ledger (%s)", len(batch), error)
            return
        for _ in batch:
            self._waiting.popleft()
