"""Reserve before, settle after: the counters of all limits, as one pure state machine.

A request reserves the most it may use on every counter that limits it, all of them or none, and settles to what it did
use, exactly once. Three kinds of counters:

    rate    amounts of the last 60 s, in slots of 2 s: what is counted stays for 60 to 62 s, so that no 60 s ever see
            more than the limit
    seats   reservations under way; each lasts until its lease ends, unless it is renewed
    money   spent, and held for reservations under way, in one period; unknown until it has been seeded

What a reservation holds is replaced by the truth at its settlement; for one that the book does not (or no longer) know,
the truth is added as it is. An id settles once: later settlements of it change nothing, for DONE_S. A reservation whose
owner died gives its seats back when its lease ends; its money stays held until someone settles it (`overdue` names it),
because it may have been spent.

Time is Unix seconds and passed in. When it jumps back, what was counted stays counted, for at most 62 s from then, and
no lease lasts longer than a lease from now. When it jumps ahead, minutes are over early: at most one limit more.
The same rules stand in `serving/quotastore/script.lua`; tests hold one against the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

SLOT_S, WINDOW_S = 2, 60
LEASE_S = 30.0  # without renewal
DONE_S = 900.0  # for so long a second settlement is known as one,
DONE_MOST = 300_000  # by a book for so many at most, which are tens of megabytes
NO_END = 2**53  # a limit that is none; whole numbers up to here are exact in Lua too
_SLOTS = WINDOW_S // SLOT_S
_SWEEP_S = 60.0
_KEPT_S = 40 * 86_400.0  # money that no one has touched for so long
Kind = Literal["rate", "seats", "money"]


class Want(msgspec.Struct, frozen=True, array_like=True):
    """What a request wants of one counter: `amount`, or what there is, but no less than `least`."""

    key: str
    kind: Kind
    most: int
    amount: int
    least: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What a request has used of one counter. For seats the amount counts nothing."""

    key: str
    kind: Kind
    amount: int


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One counter after a reservation: what was granted, what is used of it now, seconds until it is empty."""

    granted: int
    used: int
    reset_s: float


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """All wants have been granted; one line for each."""

    lines: tuple[Line, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The want at this place did not fit, and nothing is reserved. `retry_s`: when it would; 0: not known."""

    at: int
    used: int
    retry_s: float


class Unseeded(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """These money counters are not known yet; nothing is reserved."""

    keys: tuple[str, ...]


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A reservation under way, and the seats it holds."""

    request_id: str
    seats: tuple[str, ...]


class Overdue(msgspec.Struct, frozen=True, array_like=True):
    """A reservation whose lease is over, and the counters it holds."""

    request_id: str
    counters: tuple[tuple[str, Kind], ...]


Answer = Granted | Refused | Unseeded


class _Window:
    """A rate's slots, oldest first."""

    __slots__ = ("slots", "used")

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.used = 0

    def roll(self, current: int) -> None:
        """Forget what is over. What time's jump back has left in the future counts as of now."""
        slots = self.slots
        while slots and (first := next(iter(slots))) < current - _SLOTS:
            self.used -= slots.pop(first)
        if slots and next(reversed(slots)) > current:
            ahead = [slot for slot in slots if slot > current]
            slots[current] = slots.get(current, 0) + sum([slots.pop(slot) for slot in ahead])

    def add(self, slot: int, amount: int) -> None:
        """Count an amount in a slot that is not over; no slot falls below nothing."""
        before = self.slots.get(slot, 0)
        after = max(0, before + amount)
        self.used += after - before
        self.slots[slot] = after  # kept at 0, so that slots stay in order

    def frees_s(self, over: int, now: float) -> float:
        """Seconds until `over` of it are over; 0 when that never happens."""
        for slot, amount in self.slots.items():
            over -= amount
            if over <= 0:
                return max(0.0, (slot + _SLOTS + 1) * SLOT_S - now)
        return 0.0

    def reset_s(self, now: float) -> float:
        """Seconds until all of it is over."""
        last = next((slot for slot in reversed(self.slots) if self.slots[slot]), None)
        return 0.0 if last is None else max(0.0, (last + _SLOTS + 1) * SLOT_S - now)


class _Purse:
    """Money of one period, nano-USD."""

    __slots__ = ("spent", "held", "touched_at")

    def __init__(self, spent: int, now: float) -> None:
        self.spent, self.held, self.touched_at = spent, 0, now


class _Hold:
    """What a reservation under way holds: (counter, kind, amount, slot)."""

    __slots__ = ("lines", "until")

    def __init__(self, lines: list[tuple[str, Kind, int, int]], until: float) -> None:
        self.lines, self.until = lines, until


class Book:
    """All counters. Not thread-safe: one owner asks it."""

    def __init__(self) -> None:
        self._rates: dict[str, _Window] = {}
        self._seats: dict[str, dict[str, float]] = {}
        self._purses: dict[str, _Purse] = {}
        self._open: dict[str, _Hold] = {}
        self._done: OrderedDict[str, float] = OrderedDict()
        self._swept_at = float("-inf")

    def reserve(self, request_id: str, wants: Sequence[Want], now: float) -> Answer:
        """Reserve all wants, or nothing. To ask again with an id that has a reservation changes nothing."""
        self._sweep(now)
        known = self._open.get(request_id)
        if known is not None:
            held = {line[0]: line[2] for line in known.lines}
            return Granted(tuple(self._line(want, held.get(want.key, 0), now) for want in wants))
        if unknown := tuple(w.key for w in wants if w.kind == "money" and w.key not in self._purses):
            return Unseeded(unknown)
        grants: list[int] = []
        for at, want in enumerate(wants):
            used = self._used(want.key, want.kind, now)
            room = want.most - used
            if room < want.least or room <= 0:
                return Refused(at, used, self._retry_s(want, used, now))
            grants.append(min(want.amount, room))
        slot, lines = _slot(now), []
        for want, grant in zip(wants, grants, strict=True):
            self._count(request_id, want, grant, slot, now)
            lines.append((want.key, want.kind, grant, slot))
        self._open[request_id] = _Hold(lines, now + LEASE_S)
        return Granted(tuple(self._line(want, grant, now) for want, grant in zip(wants, grants, strict=True)))

    def settle(self, request_id: str, parts: Sequence[Part], now: float) -> bool:
        """Replace what a reservation holds by what was used; whether this was the first settlement of the id."""
        if request_id in self._done:
            return False
        self._done[request_id] = now
        if len(self._done) > DONE_MOST:
            self._done.popitem(last=False)
        held = self._open.pop(request_id, None)
        holds = {line[0]: line for line in held.lines} if held is not None else {}
        for part in parts:
            _, _, amount, slot = holds.pop(part.key, ("", part.kind, 0, _slot(now)))
            self._replace(request_id, part.key, part.kind, amount, part.amount, slot, now)
        for key, kind, amount, slot in holds.values():
            self._replace(request_id, key, kind, amount, 0, slot, now)
        return True

    def renew(self, leases: Iterable[Lease], now: float) -> None:
        """These requests are still under way. Seats that the book did not know of are taken all the same."""
        for lease in leases:
            if lease.request_id in self._done:
                continue
            hold = self._open.setdefault(lease.request_id, _Hold([(s, "seats", 1, 0) for s in lease.seats], now))
            hold.until = now + LEASE_S
            for key in lease.seats:
                self._seats.setdefault(key, {})[lease.request_id] = now + LEASE_S

    def overdue(self, now: float) -> list[Overdue]:
        """Reservations whose lease is over: their owner is gone, or cannot reach the book."""
        return [Overdue(request_id, tuple((line[0], line[1]) for line in hold.lines))
                for request_id, hold in self._open.items() if not now < hold.until <= now + LEASE_S]

    def seed(self, key: str, spent: int, now: float) -> None:
        """What had been spent of a money counter before the book knew it; later seeds change nothing."""
        if key not in self._purses:
            self._purses[key] = _Purse(spent, now)

    def used(self, keys: Sequence[tuple[str, Kind]], now: float) -> list[int]:
        """What is used of counters now: amounts of the last minute, seats taken, nano-USD spent and held."""
        return [self._used(key, kind, now) for key, kind in keys]

    def _used(self, key: str, kind: Kind, now: float) -> int:
        if kind == "rate":
            window = self._rates.get(key)
            if window is None:
                return 0
            window.roll(_slot(now))
            return window.used
        if kind == "seats":
            return self._taken(key, now)
        purse = self._purses.get(key)
        return purse.spent + purse.held if purse is not None else 0

    def _taken(self, key: str, now: float) -> int:
        seats = self._seats.get(key)
        if not seats:
            return 0
        for request_id, until in list(seats.items()):
            if until <= now:
                del seats[request_id]
            elif until > now + LEASE_S:  # time has jumped back
                seats[request_id] = now + LEASE_S
        return len(seats)

    def _retry_s(self, want: Want, used: int, now: float) -> float:
        window = self._rates.get(want.key)
        if want.kind != "rate" or window is None or want.least > want.most:
            return 0.0
        return window.frees_s(used + want.least - want.most, now)

    def _count(self, request_id: str, want: Want, grant: int, slot: int, now: float) -> None:
        if want.kind == "rate":
            self._rates.setdefault(want.key, _Window()).add(slot, grant)
        elif want.kind == "seats":
            self._seats.setdefault(want.key, {})[request_id] = now + LEASE_S
        else:
            purse = self._purses[want.key]
            purse.held, purse.touched_at = purse.held + grant, now

    def _replace(self, request_id: str, key: str, kind: Kind, held: int, spent: int, slot: int, now: float) -> None:
        if kind == "seats":
            self._seats.get(key, {}).pop(request_id, None)
        elif kind == "rate":
            window, current = self._rates.setdefault(key, _Window()), _slot(now)
            window.roll(current)
            slot = min(slot, current)
            if slot >= current - _SLOTS:
                window.add(slot, spent - held)
        elif (purse := self._purses.get(key)) is not None:  # else its seed will have it: the ledger knows the request
            purse.held, purse.spent, purse.touched_at = purse.held - held, purse.spent + spent, now

    def _line(self, want: Want, grant: int, now: float) -> Line:
        window = self._rates.get(want.key) if want.kind == "rate" else None
        return Line(grant, self._used(want.key, want.kind, now), window.reset_s(now) if window is not None else 0.0)

    def _sweep(self, now: float) -> None:
        """Now and then: forget what no longer counts."""
        done = self._done
        while done and not now - DONE_S < next(iter(done.values())) <= now + DONE_S:
            done.popitem(last=False)
        if abs(now - self._swept_at) < _SWEEP_S:
            return
        self._swept_at, current = now, _slot(now)
        for key, window in list(self._rates.items()):
            window.roll(current)
            if not window.slots:
                del self._rates[key]
        self._seats = {key: seats for key, seats in self._seats.items() if self._taken(key, now)}
        self._purses = {key: p for key, p in self._purses.items() if p.held or now - p.touched_at < _KEPT_S}


def _slot(now: float) -> int:
    return int(now // SLOT_S)
