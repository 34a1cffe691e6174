"""The channel from an engine core to its replica: one small message per engine step.

Why a channel: the scheduler runs in the engine's own process and must never wait for bookkeeping. Messages leave over
a bounded, non-blocking ZeroMQ pipe; when it is full, steps are folded into one and the fold is counted, so that time
and work stay whole. May not happen in here: prices, splits, the ledger.
"""

from __future__ import annotations

import msgspec
import zmq
import zmq.asyncio

QUEUE = 4096  # messages on each side before steps are folded


class Ended(msgspec.Struct, array_like=True, frozen=True):
    """A request that the engine dropped, with its token counts as the engine knows them."""

    engine_id: str
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Step(msgspec.Struct, array_like=True):
    """One or more engine steps. Times: monotonic nanoseconds. works: (engine request id, tokens, context)."""

    start_ns: int
    end_ns: int
    works: list[tuple[str, int, int]]
    ended: list[Ended]
    folded: int = 0

    def fold(self, later: Step) -> Step:
        """This step and a later one as one: their span, and each request's work added up."""
        works = {rid: (tokens, context) for rid, tokens, context in self.works}
        for rid, tokens, context in later.works:
            before, first_context = works.get(rid, (0, context))
            works[rid] = (before + tokens, first_context)
        joined = [(rid, tokens, context) for rid, (tokens, context) in works.items()]
        start, end = min(self.start_ns, later.start_ns), max(self.end_ns, later.end_ns)
        return Step(start, end, joined, self.ended + later.ended, self.folded + later.folded + 1)


class StepSender:
    """The engine's end. Not thread-safe; `send` never blocks and never raises for a slow reader."""

    def __init__(self, address: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)
        self._encoder = msgspec.msgpack.Encoder()
        self._held: Step | None = None

    def send(self, step: Step) -> None:
        """Send a step, or hold it folded with earlier ones until the channel takes messages again."""
        if self._held is not None:
            step = self._held.fold(step)
        try:
            self._socket.send(self._encoder.encode(step), zmq.NOBLOCK)
            self._held = None
        except zmq.Again:
            self._held = step


class StepReceiver:
    """The replica's end: an async iterator of steps, in the order they were sent."""

    def __init__(self, address: str) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, QUEUE)
        self._socket.bind(address)
        self._decoder = msgspec.msgpack.Decoder(Step)

    def __aiter__(self) -> StepReceiver:
        return self

    async def __anext__(self) -> Step:
        return self._decoder.decode(await self._socket.recv())

    def close(self) -> None:
        """Close the socket; messages not yet read are dropped."""
        self._socket.close(linger=0)
