"""One model's replicas and its gateway queue, compiled: who answers whom, from one decision of the policy to the next.

Requests wait in one queue, first come, first served, for a seat at a replica: `in_flight` per replica at most, as
gateways hold it. Which replica is `serving.fleet.balance`'s rule: rendezvous hashing over conversations with bounded
loads, or the least busy one.
"""

from __future__ import annotations

import numpy as np

from serving.simulator.compiled import compiled
from serving.simulator.engine import begin, cut_short, ended, finish
from serving.simulator.events import left
from serving.simulator.state import (
    ARRIVED,
    ARRIVED_TOKENS,
    DRAINING,
    EMPTY,
    EVENTS,
    FAILED,
    FREE,
    HEAD,
    IDLE,
    NEVER,
    QUEUED,
    QUEUED_TOKENS,
    READY,
    TAIL,
    TURN,
    Pool,
)

_UNHURRIED = 4  # as in serving.fleet.balance: with fewer in flight no replica is busy
_MULTIPLY_A, _MULTIPLY_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@compiled
def mixed(key: int, seed: np.uint64) -> np.uint64:
    """`serving.fleet.balance.mix`, compiled (a test holds both together)."""
    x = np.uint64(key) ^ seed
    x = (x ^ (x >> _30)) * _MULTIPLY_A
    x = (x ^ (x >> _27)) * _MULTIPLY_B
    return x ^ (x >> _31)


@compiled
def _choose(pool: Pool, s: int) -> int:
    """The replica for a request; -1: none has room."""
    p, v = pool.replicas, pool.variants
    rows = len(p.state)
    if not pool.by_conversation:
        start, best, least = pool.count[TURN], -1, np.inf
        for step in range(rows):
            r = start + step
            if r >= rows:
                r -= rows
            if p.state[r] != READY or p.in_flight[r] >= v.in_flight[p.variant[r]]:
                continue
            load = p.in_flight[r] / v.in_flight[p.variant[r]]
            if load < least:
                best, least = r, load
                if load == 0.0:
                    break
        return best
    total, ready = 0, 0
    for r in range(rows):
        if p.state[r] == READY:
            ready += 1
            total += p.in_flight[r]
    if ready == 0:
        return -1
    bound = max(float(_UNHURRIED), np.ceil(pool.factor * (total + 1) / ready))
    key = pool.requests.key[s]
    best, most = -1, np.uint64(0)
    for r in range(rows):
        if p.state[r] == READY and p.in_flight[r] < min(bound, v.in_flight[p.variant[r]]):
            hashed = mixed(key, p.seed[r])
            if best < 0 or hashed > most:
                best, most = r, hashed
    return best


@compiled
def _send(pool: Pool, s: int, r: int, now: float) -> None:
    """A request goes to a replica."""
    q, p = pool.requests, pool.replicas
    q.replica[s], q.following[s] = r, -1
    if p.tail[r] < 0:
        p.head[r] = s
    else:
        q.following[p.tail[r]] = s
    p.tail[r] = s
    p.waiting[r] += 1
    p.waiting_tokens[r] += q.prompt[s] + q.made[s]
    p.in_flight[r] += 1
    pool.count[TURN] = (r + 1) % len(p.state)
    if p.doing[r] == IDLE:
        begin(pool, r, now)
    else:
        cut_short(pool, r, now)


@compiled
def dispatch(pool: Pool, now: float) -> None:
    """Send those who wait in the gateway, as far as there is room."""
    q = pool.requests
    while pool.count[QUEUED] > 0:
        s = pool.count[HEAD]
        r = _choose(pool, s)
        if r < 0:
            return
        pool.count[HEAD] = q.following[s]
        if pool.count[HEAD] < 0:
            pool.count[TAIL] = -1
        pool.count[QUEUED] -= 1
        pool.count[QUEUED_TOKENS] -= q.prompt[s] + q.made[s]
        _send(pool, s, r, now)


@compiled
def _arrive(pool: Pool, number: int, at: float, prompt: int, output: int, key: int, blocks_at: int,
            blocks: int) -> None:
    q, count = pool.requests, pool.count
    count[FREE] -= 1
    s = pool.free[count[FREE]]
    q.number[s], q.arrived[s], q.prompt[s], q.output[s], q.key[s] = number, at, prompt, output, key
    q.blocks_at[s], q.blocks[s] = blocks_at, blocks
    q.cached[s] = q.computed[s] = q.made[s] = q.redo[s] = q.deaths[s] = q.preempted[s] = 0
    q.seconds[s] = q.wasted[s] = q.booked[s] = q.booked_wasted[s] = 0.0
    q.first[s], q.replica[s], q.following[s] = -1.0, -1, -1
    if count[TAIL] < 0:
        count[HEAD] = s
    else:
        q.following[count[TAIL]] = s
    count[TAIL] = s
    count[QUEUED] += 1
    count[QUEUED_TOKENS] += prompt
    count[ARRIVED] += 1
    count[ARRIVED_TOKENS] += prompt
    dispatch(pool, at)


@compiled
def advance(pool: Pool, until: float, first: int, numbers: np.ndarray, at: np.ndarray, prompt: np.ndarray,
            output: np.ndarray, key: np.ndarray, blocks_at: np.ndarray, blocks: np.ndarray) -> int:
    """Everything up to `until`, seconds: arrivals from index `first` on, and steps that end.

    Returns the index of the first arrival that is still to come. Rows for all arrivals up to `until` must be free.
    """
    p, i = pool.replicas, first
    while True:
        arrival = at[i] if i < len(at) else NEVER
        step, r = NEVER, -1
        if pool.count[EVENTS] > 0:
            r = pool.heap[0]
            step = p.until[r]
        if min(arrival, step) > until:
            return i
        if step <= arrival:
            done = finish(pool, r)
            begin(pool, r, step)
            if done > 0 and pool.count[QUEUED] > 0:
                dispatch(pool, step)
        else:
            _arrive(pool, numbers[i], arrival, prompt[i], output[i], key[i], blocks_at[i], blocks[i])
            i += 1


@compiled
def give_up(pool: Pool, now: float, longest: float) -> None:
    """Whoever has waited in the gateway for longer than that is sent away."""
    q, count = pool.requests, pool.count
    while count[QUEUED] > 0 and now - q.arrived[count[HEAD]] > longest:
        s = count[HEAD]
        count[HEAD] = q.following[s]
        if count[HEAD] < 0:
            count[TAIL] = -1
        count[QUEUED] -= 1
        count[QUEUED_TOKENS] -= q.prompt[s] + q.made[s]
        ended(pool, s, now, FAILED)


@compiled
def open_row(pool: Pool, r: int, variant: int, seed: np.uint64, now: float) -> None:
    """A replica is ready in this empty row."""
    p = pool.replicas
    p.state[r], p.variant[r], p.seed[r], p.doing[r] = READY, variant, seed, IDLE
    p.until[r], p.seen[r], p.busy[r] = NEVER, now, 0.0
    p.steps[r] = p.seats[r] = p.waiting[r] = p.waiting_tokens[r] = p.used[r] = p.context[r] = 0
    p.in_flight[r] = p.made[r] = p.volume[r] = 0
    p.head[r] = p.tail[r] = -1
    if r < p.cache_id.shape[0]:
        p.cache_id[r, :] = -1
    dispatch(pool, now)


@compiled
def drain(pool: Pool, r: int) -> None:
    """No new requests for this replica; those it has are answered."""
    pool.replicas.state[r] = DRAINING


@compiled
def close_row(pool: Pool, r: int) -> None:
    """The replica of this row is gone; it must have no requests."""
    left(pool, r)
    pool.replicas.state[r] = EMPTY


@compiled
def fail(pool: Pool, r: int, now: float) -> None:
    """A replica dies: answers that had begun break off, the others go back to the head of the queue (once each)."""
    q, p, count = pool.requests, pool.replicas, pool.count
    left(pool, r)
    s = p.head[r]
    total = p.seats[r]
    back_head, back_tail = -1, -1
    i = 0
    while i < total or s >= 0:
        if i < total:
            at = p.running[r, i]
            i += 1
            following = s
        else:
            at = s
            following = q.following[s]
        s = following
        q.deaths[at] += 1
        q.redo[at] = max(q.redo[at], q.computed[at])
        q.computed[at] = 0
        if q.made[at] > 0 or q.deaths[at] > 1:
            ended(pool, at, now, FAILED)
            continue
        q.replica[at], q.following[at] = -1, -1
        if back_tail < 0:
            back_head = at
        else:
            q.following[back_tail] = at
        back_tail = at
        count[QUEUED] += 1
        count[QUEUED_TOKENS] += q.prompt[at]
    if back_tail >= 0:
        q.following[back_tail] = count[HEAD]
        if count[HEAD] < 0:
            count[TAIL] = back_tail
        count[HEAD] = back_head
    p.state[r], p.seats[r], p.waiting[r], p.waiting_tokens[r], p.used[r], p.context[r] = EMPTY, 0, 0, 0, 0, 0
    p.in_flight[r], p.doing[r], p.until[r] = 0, IDLE, NEVER
    p.head[r] = p.tail[r] = -1
    dispatch(pool, now)
