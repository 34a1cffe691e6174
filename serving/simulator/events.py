"""Which replica's step ends next: a binary heap of replica rows by the time their steps end, compiled.

Each row knows its place, so that steps cut short by an arrival move within the heap. Ties go to the lower row: the
same seed gives the same run.
"""

from __future__ import annotations

from serving.simulator.compiled import compiled
from serving.simulator.state import EVENTS, Pool


@compiled
def _before(pool: Pool, a: int, b: int) -> bool:
    x, y = pool.replicas.until[a], pool.replicas.until[b]
    return x < y or (x == y and a < b)


@compiled
def _put(pool: Pool, at: int, row: int) -> None:
    pool.heap[at] = row
    pool.replicas.place[row] = at


@compiled
def _rise(pool: Pool, at: int) -> int:
    row = pool.heap[at]
    while at > 0:
        above = (at - 1) >> 1
        other = pool.heap[above]
        if not _before(pool, row, other):
            break
        _put(pool, at, other)
        at = above
    _put(pool, at, row)
    return at


@compiled
def _sink(pool: Pool, at: int) -> None:
    size, row = pool.count[EVENTS], pool.heap[at]
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and _before(pool, pool.heap[below + 1], pool.heap[below]):
            below += 1
        other = pool.heap[below]
        if not _before(pool, other, row):
            break
        _put(pool, at, other)
        at = below
    _put(pool, at, row)


@compiled
def moved(pool: Pool, row: int) -> None:
    """The steps of this replica end at another time now, or have just begun."""
    at = pool.replicas.place[row]
    if at < 0:
        at = pool.count[EVENTS]
        pool.count[EVENTS] = at + 1
        _put(pool, at, row)
    _sink(pool, _rise(pool, at))


@compiled
def left(pool: Pool, row: int) -> None:
    """This replica has no steps under way."""
    at = pool.replicas.place[row]
    if at < 0:
        return
    pool.replicas.place[row] = -1
    last = pool.count[EVENTS] - 1
    pool.count[EVENTS] = last
    if at != last:
        _put(pool, at, pool.heap[last])
        _sink(pool, _rise(pool, at))
