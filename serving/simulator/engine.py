"""One replica's engine, compiled: vLLM's scheduling in steps, and runs of decode steps in closed form.

A step takes what runs first, oldest first, one token each or a chunk of its prompt, then what waits, until `budget`
tokens are scheduled, all seats are taken or no KV block is free. When a block is missing for what runs, the youngest
gives its own back and starts anew (preemption by recompute). A batch that only decodes does not change until one ends,
a block is missing or someone arrives: its steps take k*A + D*k(k-1)/2 seconds together.

What is left out: KV blocks are not shared by the requests that run (each holds its whole context), prefix-cache entries
age by the volume written since (a bound of LRU's stack distance), and scheduling ahead of the running step.
"""

from __future__ import annotations

import numpy as np

from serving.fleet import stepmodel
from serving.simulator.compiled import compiled
from serving.simulator.events import left, moved
from serving.simulator.state import (
    DECODING,
    ENDED,
    FINISHED,
    FREE,
    IDLE,
    MIXED,
    NEVER,
    PREEMPTED,
    Pool,
)

_due = compiled(stepmodel.due)
_due_decoding = compiled(stepmodel.due_decoding)


@compiled
def _blocks(tokens: int, block: int) -> int:
    return (tokens + block - 1) // block


@compiled
def run_seconds(first: float, growth: float, steps: int) -> float:
    """How long so many decode steps take: the first one `first` seconds, each next one `growth` longer."""
    return steps * first + growth * (steps * (steps - 1) * 0.5)


@compiled
def steps_within(first: float, growth: float, seconds: float, most: int) -> int:
    """How many decode steps have begun after so many seconds: the one under way is still done. 1 to `most`."""
    if growth > 0:
        b = first - 0.5 * growth
        steps = int(np.ceil((np.sqrt(b * b + 2.0 * growth * max(seconds, 0.0)) - b) / growth))
    else:
        steps = int(np.ceil(seconds / first))
    steps = min(max(steps, 1), most)
    while steps > 1 and run_seconds(first, growth, steps - 1) >= seconds:
        steps -= 1
    while steps < most and run_seconds(first, growth, steps) < seconds:
        steps += 1
    return steps


@compiled
def _decode_pace(pool: Pool, r: int) -> tuple[float, float]:
    """Seconds of the next decode step, and by how much each further one is longer."""
    p, v = pool.replicas, pool.variants
    kind, n = p.variant[r], p.seats[r]
    reading = v.attention[kind] + v.cache[kind]
    return v.fixed[kind] + v.token[kind] * n + reading * p.context[r], reading * n


@compiled
def _cached(pool: Pool, r: int, s: int) -> int:
    """Prompt tokens that the prefix cache has for this request."""
    q, p, v = pool.requests, pool.replicas, pool.variants
    kind, mask, hit = p.variant[r], p.cache_id.shape[1] - 1, 0
    room = (v.kv_blocks[kind] - p.used[r]) * v.block[kind]
    for j in range(q.blocks[s]):
        name = pool.bids[q.blocks_at[s] + j]
        slot = name & mask
        if p.cache_id[r, slot] != name or p.volume[r] - p.cache_at[r, slot] > room:
            break
        hit += pool.block_tokens
    return min(hit, q.prompt[s] - 1)


@compiled
def _remember(pool: Pool, r: int, s: int) -> None:
    """The prefix cache has all blocks of this prompt from now on."""
    q, p = pool.requests, pool.replicas
    mask = p.cache_id.shape[1] - 1
    for j in range(q.blocks[s]):
        name = pool.bids[q.blocks_at[s] + j]
        slot = name & mask
        if p.cache_id[r, slot] != name:
            p.volume[r] += pool.block_tokens
        p.cache_id[r, slot] = name
        p.cache_at[r, slot] = p.volume[r]


@compiled
def _preempt_last(pool: Pool, r: int) -> None:
    """The youngest that runs goes back to the head of those that wait, and loses its blocks."""
    q, p, v = pool.requests, pool.replicas, pool.variants
    last = p.seats[r] - 1
    s = p.running[r, last]
    p.seats[r] = last
    p.context[r] -= q.computed[s]
    p.used[r] -= _blocks(q.computed[s], v.block[p.variant[r]])
    q.redo[s] = max(q.redo[s], q.computed[s])
    q.computed[s] = 0
    q.preempted[s] += 1
    pool.count[PREEMPTED] += 1
    q.following[s] = p.head[r]
    p.head[r] = s
    if p.tail[r] < 0:
        p.tail[r] = s
    p.waiting[r] += 1
    p.waiting_tokens[r] += q.prompt[s] + q.made[s]


@compiled
def begin(pool: Pool, r: int, now: float) -> None:
    """Schedule the next step of a replica whose last one has ended, or a run of decode steps; or let it be idle."""
    q, p, v = pool.requests, pool.replicas, pool.variants
    kind = p.variant[r]
    budget, block, room = v.budget[kind], v.block[kind], v.kv_blocks[kind]
    mixed, preempted, i = False, False, 0
    while i < p.seats[r]:
        s = p.running[r, i]
        have = q.computed[s]
        need = q.prompt[s] + q.made[s] - have
        take = min(need, budget)
        fresh = _blocks(have + take, block) - _blocks(have, block)
        gone = False
        while p.used[r] + fresh > room:
            gone = p.seats[r] - 1 == i
            _preempt_last(pool, r)
            preempted = True
            if gone:
                break
        if gone:
            break
        p.chunk[r, i] = take
        p.used[r] += fresh
        budget -= take
        if take != 1 or need > 1 or q.made[s] == 0:
            mixed = True
        i += 1
    while not preempted and p.waiting[r] > 0 and p.seats[r] < v.seats[kind] and budget > 0:
        s = p.head[r]
        known = q.prompt[s] + q.made[s]
        free = room - p.used[r]
        found = _cached(pool, r, s)
        take = min(known - found, budget)
        fresh = _blocks(found + take, block)
        if fresh > free:
            break
        _remember(pool, r, s)
        p.head[r] = q.following[s]
        if p.head[r] < 0:
            p.tail[r] = -1
        p.waiting[r] -= 1
        p.waiting_tokens[r] -= known
        q.computed[s] = found
        if q.preempted[s] == 0:
            q.cached[s] = found
        q.redo[s] = max(0, q.redo[s] - found)
        seat = p.seats[r]
        p.running[r, seat] = s
        p.chunk[r, seat] = take
        p.seats[r] = seat + 1
        p.context[r] += found
        p.used[r] += fresh
        budget -= take
        mixed = True
    if p.seats[r] == 0:
        p.doing[r], p.steps[r], p.until[r] = IDLE, 0, NEVER
        left(pool, r)
        return
    p.begun[r] = now
    if mixed:
        p.doing[r], p.steps[r] = MIXED, 1
        p.until[r] = now + _mixed_seconds(pool, r)
    else:
        p.doing[r], p.steps[r] = DECODING, _longest_run(pool, r)
        first, growth = _decode_pace(pool, r)
        p.until[r] = now + run_seconds(first, growth, p.steps[r])
    moved(pool, r)


@compiled
def _mixed_seconds(pool: Pool, r: int) -> float:
    q, p, v = pool.requests, pool.replicas, pool.variants
    kind = p.variant[r]
    tokens, pairs, contexts = 0, 0.0, 0
    for i in range(p.seats[r]):
        n = p.chunk[r, i]
        if n > 0:
            have = q.computed[p.running[r, i]]
            tokens += n
            pairs += n * (have + (n - 1) * 0.5)
            contexts += have
    return v.fixed[kind] + v.token[kind] * tokens + v.attention[kind] * pairs + v.cache[kind] * contexts


@compiled
def _longest_run(pool: Pool, r: int) -> int:
    """Decode steps until one of the batch ends or a KV block would be missing; the first has its blocks."""
    q, p, v = pool.requests, pool.replicas, pool.variants
    kind, n = p.variant[r], p.seats[r]
    most = q.output[p.running[r, 0]] - q.made[p.running[r, 0]]
    for i in range(1, n):
        s = p.running[r, i]
        most = min(most, q.output[s] - q.made[s])
    block, free = v.block[kind], v.kv_blocks[kind] - p.used[r]
    if _blocks(most - 1, block) * n <= free:
        return most
    # in `block` steps each request needs one block: whole rounds first, then step by step
    rounds = free // n
    free -= rounds * n
    wanted = np.zeros(block, np.int64)  # [steps after the first, in a round]: blocks needed
    for i in range(n):
        have = q.computed[p.running[r, i]] + 1
        wanted[(block - have % block) % block] += 1
    steps = 1 + rounds * block
    for more in range(block):
        free -= wanted[more]
        if free < 0:
            break
        steps += 1
    return min(steps, most)


@compiled
def cut_short(pool: Pool, r: int, now: float) -> None:
    """Someone arrives at a replica: its run of decode steps ends with the step under way."""
    p = pool.replicas
    if p.doing[r] != DECODING or p.steps[r] == 1 or p.seats[r] >= pool.variants.seats[p.variant[r]]:
        return
    first, growth = _decode_pace(pool, r)
    steps = steps_within(first, growth, now - p.begun[r], p.steps[r])
    if steps < p.steps[r]:
        p.steps[r] = steps
        p.until[r] = p.begun[r] + run_seconds(first, growth, steps)
        moved(pool, r)


@compiled
def finish(pool: Pool, r: int) -> int:
    """The steps under way have ended: count their tokens and shares. Returns how many requests are done."""
    q, p, v = pool.requests, pool.replicas, pool.variants
    kind, end = p.variant[r], p.until[r]
    a, b, c, d = v.fixed[kind], v.token[kind], v.attention[kind], v.cache[kind]
    block, n, steps = v.block[kind], p.seats[r], p.steps[r]
    first = end
    if p.doing[r] == DECODING:
        pace, growth = _decode_pace(pool, r)
        first = p.begun[r] + pace
    scheduled = 0
    for i in range(n):
        if p.chunk[r, i] > 0:
            scheduled += 1
    kept, context, made = 0, 0, 0
    for i in range(n):
        s = p.running[r, i]
        have, chunk = q.computed[s], p.chunk[r, i]
        if p.doing[r] == DECODING:
            q.seconds[s] += _due_decoding(a, b, c, d, steps, have, n)
            p.used[r] += _blocks(have + steps, block) - _blocks(have + 1, block)
            q.computed[s] = have + steps
            q.made[s] += steps
            made += steps
        elif chunk > 0:
            share = _due(a, b, c, d, chunk, have, scheduled)
            q.seconds[s] += share
            if q.redo[s] > 0:
                lost = min(q.redo[s], chunk)
                if lost < chunk:
                    share -= _due(a, b, c, d, chunk - lost, have + lost, scheduled)
                q.wasted[s] += max(0.0, share)
                q.redo[s] -= lost
            q.computed[s] = have + chunk
            if q.computed[s] == q.prompt[s] + q.made[s]:
                q.made[s] += 1
                made += 1
        if q.first[s] < 0 and q.made[s] > 0:
            q.first[s] = first
        if q.made[s] >= q.output[s]:
            p.used[r] -= _blocks(q.computed[s], block)
            p.volume[r] += q.computed[s] - q.blocks[s] * pool.block_tokens
            p.in_flight[r] -= 1
            ended(pool, s, end, FINISHED)
        else:
            p.running[r, kept] = s
            kept += 1
            context += q.computed[s]
    p.seats[r], p.context[r] = kept, context
    p.busy[r] += end - p.begun[r]
    p.seen[r] = end
    p.made[r] += made
    p.doing[r] = IDLE
    return n - kept


@compiled
def ended(pool: Pool, s: int, now: float, outcome: int) -> None:
    """A request is over: write it down and free its row."""
    q, e, at = pool.requests, pool.ended, pool.count[ENDED]
    e.number[at], e.arrived[at], e.first[at], e.ended[at] = q.number[s], q.arrived[s], q.first[s], now
    e.prompt[at], e.output[at], e.cached[at], e.replica[at] = q.prompt[s], q.made[s], q.cached[s], q.replica[s]
    e.outcome[at], e.preempted[at] = outcome, q.preempted[s]
    e.seconds[at], e.wasted[at], e.booked[at], e.booked_wasted[at] = (
        q.seconds[s], q.wasted[s], q.booked[s], q.booked_wasted[s])
    q.seconds[s] = q.booked[s] = 0.0  # free rows have nothing to book
    pool.count[ENDED] = at + 1
    pool.free[pool.count[FREE]] = s
    pool.count[FREE] += 1
