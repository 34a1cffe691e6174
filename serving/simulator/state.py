"""The arrays that the compiled loops work on: requests under way, replicas, variants, and what has ended.

Rows are reused, so that memory follows what is under way and not what has passed. Times are seconds from the start.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from serving.simulator.profile import EngineProfile

#: Outcomes of a request.
FINISHED, FAILED = 0, 1
#: States of a replica's row.
EMPTY, READY, DRAINING = 0, 1, 2
#: What a replica does.
IDLE, MIXED, DECODING = 0, 1, 2
#: Places in `Pool.count`.
QUEUED, QUEUED_TOKENS, HEAD, TAIL, FREE, ENDED, EVENTS, TURN, ARRIVED, ARRIVED_TOKENS, PREEMPTED = range(11)
NEVER = np.inf


class Requests(NamedTuple):
    """One row for each request under way."""

    number: np.ndarray  # its place in the whole trace
    arrived: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    key: np.ndarray  # of its conversation; 0: none
    blocks_at: np.ndarray  # where its prompt's blocks begin in the trace's list of block ids
    blocks: np.ndarray
    cached: np.ndarray  # prompt tokens found in the prefix cache
    computed: np.ndarray  # tokens whose keys and values are there
    made: np.ndarray  # output tokens
    redo: np.ndarray  # tokens still to be computed a second time
    first: np.ndarray  # when its first token came; below 0: not yet
    replica: np.ndarray  # row; -1: it waits in the gateway
    following: np.ndarray  # the next one in the queue it stands in; -1: none
    deaths: np.ndarray  # replicas that died under it
    preempted: np.ndarray
    seconds: np.ndarray  # of engine steps, its Shapley share
    wasted: np.ndarray  # of these, for tokens computed before
    booked: np.ndarray  # of `seconds`, what the books have
    booked_wasted: np.ndarray


class Replicas(NamedTuple):
    """One row for each replica that takes or ends requests."""

    state: np.ndarray
    variant: np.ndarray
    seed: np.ndarray  # of its hashes
    doing: np.ndarray
    begun: np.ndarray  # when the steps under way began
    until: np.ndarray  # when they end
    steps: np.ndarray
    running: np.ndarray  # [row, seat]: requests in the batch, oldest first
    chunk: np.ndarray  # [row, seat]: tokens of each in the step under way
    seats: np.ndarray  # taken
    head: np.ndarray  # of those that wait in the engine
    tail: np.ndarray
    waiting: np.ndarray
    waiting_tokens: np.ndarray
    used: np.ndarray  # KV blocks
    context: np.ndarray  # computed tokens of all that run
    in_flight: np.ndarray
    busy: np.ndarray  # seconds, of steps that have ended
    seen: np.ndarray  # when the last step ended
    made: np.ndarray  # output tokens, ever
    volume: np.ndarray  # tokens written into the cache, ever
    cache_id: np.ndarray  # [row, slot]: blocks that the prefix cache holds
    cache_at: np.ndarray  # [row, slot]: `volume` when it was last used
    place: np.ndarray  # in the heap of events


class Variants(NamedTuple):
    """One row for each variant of the model."""

    fixed: np.ndarray
    token: np.ndarray
    attention: np.ndarray
    cache: np.ndarray
    kv_blocks: np.ndarray
    block: np.ndarray
    seats: np.ndarray
    budget: np.ndarray
    in_flight: np.ndarray


class Ended(NamedTuple):
    """Requests that have ended and wait to be read."""

    number: np.ndarray
    arrived: np.ndarray
    first: np.ndarray
    ended: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    cached: np.ndarray
    replica: np.ndarray
    outcome: np.ndarray
    preempted: np.ndarray
    seconds: np.ndarray
    wasted: np.ndarray
    booked: np.ndarray
    booked_wasted: np.ndarray


class Pool(NamedTuple):
    """All of one model."""

    requests: Requests
    replicas: Replicas
    variants: Variants
    ended: Ended
    count: np.ndarray
    free: np.ndarray  # rows of requests that are free: a stack of count[FREE]
    heap: np.ndarray  # rows of replicas by `until`: count[EVENTS] of them
    bids: np.ndarray  # ids of the trace's blocks
    block_tokens: int  # tokens that one of those ids stands for
    by_conversation: bool
    factor: float


_REQUEST_KINDS = {"number": np.int64, "key": np.int64, "blocks_at": np.int64, "arrived": float, "first": float,
                  "seconds": float, "wasted": float, "booked": float, "booked_wasted": float}
_ENDED_KINDS = {"number": np.int64, "arrived": float, "first": float, "ended": float, "seconds": float,
                "wasted": float, "booked": float, "booked_wasted": float}


def make(profiles: tuple[EngineProfile, ...], replicas: int, in_flight: tuple[int, ...], by_conversation: bool,
         bids: np.ndarray, block_tokens: int, factor: float = 1.25) -> Pool:
    """An empty pool with room for so many replicas at once. `in_flight`: most requests per replica, by variant."""
    variants = Variants(*(np.array([float(getattr(p.steps, c)) for p in profiles]) for c in (
        "fixed", "token", "attention", "cache")), *(np.array(v, np.int64) for v in (
            [p.kv_blocks for p in profiles], [p.block_tokens for p in profiles], [p.max_num_seqs for p in profiles],
            [p.max_batched_tokens for p in profiles], list(in_flight))))
    seats = max(p.max_num_seqs for p in profiles)
    slots = _power_of_two(max(p.kv_tokens for p in profiles) // block_tokens * 2) if len(bids) else 1

    def ints(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    def floats() -> np.ndarray:
        return np.zeros(replicas)

    rows = Replicas(
        state=ints(replicas), variant=ints(replicas), seed=np.zeros(replicas, np.uint64), doing=ints(replicas),
        begun=floats(), until=np.full(replicas, NEVER), steps=ints(replicas),
        running=np.zeros((replicas, seats), np.int32), chunk=np.zeros((replicas, seats), np.int32),
        seats=ints(replicas), head=np.full(replicas, -1), tail=np.full(replicas, -1), waiting=ints(replicas),
        waiting_tokens=ints(replicas), used=ints(replicas), context=ints(replicas), in_flight=ints(replicas),
        busy=floats(), seen=floats(), made=ints(replicas), volume=ints(replicas),
        cache_id=np.full((replicas if len(bids) else 1, slots), -1), cache_at=ints(replicas if len(bids) else 1, slots),
        place=np.full(replicas, -1))
    count = np.zeros(16, np.int64)
    count[HEAD] = count[TAIL] = -1
    empty = Pool(_requests(0), rows, variants, _ended(0), count, np.zeros(0, np.int64), np.zeros(replicas, np.int64),
                 bids if len(bids) else np.zeros(1, np.int64), block_tokens, by_conversation, factor)
    return with_room(empty, 1_024)


def with_room(pool: Pool, more: int) -> Pool:
    """The same pool with free rows for at least `more` requests, and room for all of them to end."""
    free, size = int(pool.count[FREE]), len(pool.free)
    if free < more:
        bigger = max(2 * size, size - free + more)
        requests = _requests(bigger)
        for name, column in zip(Requests._fields, requests, strict=True):
            column[:size] = getattr(pool.requests, name)
        stack = np.zeros(bigger, np.int64)
        stack[:free] = pool.free[:free]
        stack[free:free + bigger - size] = np.arange(bigger - 1, size - 1, -1)
        pool.count[FREE] = free + bigger - size
        pool = pool._replace(requests=requests, free=stack)
    if len(pool.ended.number) < int(pool.count[ENDED]) + len(pool.free):
        ended, filled = _ended(int(pool.count[ENDED]) + len(pool.free)), int(pool.count[ENDED])
        for name, column in zip(Ended._fields, ended, strict=True):
            column[:filled] = getattr(pool.ended, name)[:filled]
        pool = pool._replace(ended=ended)
    return pool


def taken(pool: Pool) -> Ended:
    """What has ended since the last call, as copies; forgets it."""
    count = int(pool.count[ENDED])
    pool.count[ENDED] = 0
    return Ended(*(column[:count].copy() for column in pool.ended))


def _requests(size: int) -> Requests:
    return Requests(*(np.zeros(size, _REQUEST_KINDS.get(name, np.int32)) for name in Requests._fields))


def _ended(size: int) -> Ended:
    return Ended(*(np.zeros(size, _ENDED_KINDS.get(name, np.int32)) for name in Ended._fields))


def _power_of_two(least: int) -> int:
    return 1 << max(0, int(least - 1).bit_length())
