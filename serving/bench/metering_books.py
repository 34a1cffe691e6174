"""The other end of the step channel in `flotilla bench metering`: a replica's books, and what they cost its process.

Run as `python -m serving.bench.metering_books ADDRESS RUNNING`; says `ready`, keeps books until its input ends, then
says what it took. Readings are made as often as a replica makes them and go nowhere: the ledger is another matter.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict

from serving.bench.metering import BooksCost
from serving.engines.books import Books, ReplicaFacts
from serving.engines.steps import Step, StepReceiver
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine

_NANOUSD_PER_HOUR = 3_000_000_000


class Listener:
    """Takes steps into books and times it for those with so many requests."""

    def __init__(self, books: Books, running: int) -> None:
        self._books, self._running = books, running
        self._took: list[int] = []
        self._steps, self._first_s = 0, 0.0

    def take(self, step: Step) -> None:
        """Book what one message tells."""
        if not self._steps:
            self._first_s = time.process_time()
        told = 1 + len(step.again)
        self._steps += told
        begun = time.perf_counter_ns()
        self._books.take(step)
        took = time.perf_counter_ns() - begun
        if len(step.works) == self._running:
            self._took += [took // told] * told

    def cost(self) -> BooksCost:
        """What it has taken so far."""
        return BooksCost(self._took, time.process_time() - self._first_s, self._steps)


async def listen(address: str, running: int) -> BooksCost:
    """Until the input ends."""
    facts = ReplicaFacts("bench", "qwen", "core", PriceLine.fixed(_NANOUSD_PER_HOUR), LoadingPolicy())
    books = Books(facts, time.monotonic_ns(), time.time(), lambda reading: None)
    books.ready("127.0.0.1:0")
    listener = Listener(books, running)
    receiver = StepReceiver(address, listener.take)
    await receiver.start()
    keeping = asyncio.create_task(books.keep())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    keeping.cancel()
    receiver.close()
    return listener.cost()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(listen(sys.argv[1], int(sys.argv[2]))))))
