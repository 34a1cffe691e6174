"""The requests of a trace as arrays, in chunks, so that a long one needs no more memory than a short one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Chunk(NamedTuple):
    """Some requests in order of time. at: seconds from the run's start. key: of the conversation, 0: none. blocks_at,
    blocks: where the names of the prompt's blocks are in the traffic's `bids`, and how many."""

    at: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    key: np.ndarray
    blocks_at: np.ndarray
    blocks: np.ndarray

    def part(self, chosen: slice | np.ndarray) -> Chunk:
        """Only these."""
        return Chunk(*(column[chosen] for column in self))


class Traffic(NamedTuple):
    """What one model is asked. chunks: in order of time; `length_s`: how long the run is. bids: names of blocks of
    `block_tokens` tokens that prompts are made of, equal ones stand for equal text."""

    chunks: Sequence[Chunk] | Iterable[Chunk]
    length_s: float
    bids: np.ndarray
    block_tokens: int = 1

    def between(self, start_s: float, end_s: float) -> Traffic:
        """The requests of a stretch, on a clock that begins with it."""
        return self._replace(chunks=tuple(_moved(c, start_s, end_s) for c in self.chunks), length_s=end_s - start_s)


def _moved(chunk: Chunk, start_s: float, end_s: float) -> Chunk:
    part = chunk.part((chunk.at >= start_s) & (chunk.at < end_s))
    return part._replace(at=part.at - start_s)


def traffic(at: Sequence[float] | np.ndarray, prompt: Sequence[int] | np.ndarray, output: Sequence[int] | np.ndarray,
            length_s: float, key: Sequence[int] | np.ndarray | None = None,
            blocks: Sequence[Sequence[int]] | None = None, block_tokens: int = 1) -> Traffic:
    """Traffic of plain columns. key: 64-bit names of conversations. blocks: names of each prompt's blocks."""
    at = np.asarray(at, float)
    order = np.argsort(at, kind="stable")
    count = len(at)
    sizes = np.array([len(b) for b in blocks], np.int64) if blocks is not None else np.zeros(count, np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)[:-1]]) if count else sizes
    names = _dense([b for prompt_blocks in blocks for b in prompt_blocks]) if blocks is not None else _dense([])
    keys = np.zeros(count, np.int64) if key is None else np.asarray(key, np.int64)
    whole = Chunk(at, np.maximum(1, np.asarray(prompt, np.int64)), np.maximum(1, np.asarray(output, np.int64)), keys,
                  starts, sizes)
    return Traffic((whole.part(order),), length_s, names, block_tokens)


def whole(asked: Traffic) -> Chunk:
    """All requests at once."""
    return Chunk(*(np.concatenate(column) for column in zip(*asked.chunks, strict=True)))


def repeated(asked: Traffic, times: float, seed: int, spread_s: float = 10.0) -> Traffic:
    """The same traffic so many times as dense: each request again within seconds, as from a fleet so much larger, or
    only some of them. Copies share no prompts. Deterministic by seed."""
    if times == 1:
        return asked
    requests, rng = whole(asked), np.random.default_rng(np.random.SeedSequence([seed, round(times * 1_000)]))
    names, parts, copies = int(asked.bids.max()) + 1 if len(asked.bids) else 0, [], int(np.ceil(times))
    for n in range(copies):
        late = rng.uniform(0, spread_s, len(requests.at)) if n else 0.0
        copy = requests._replace(at=requests.at + late, key=requests.key + n * 1_000_003,
                                 blocks_at=requests.blocks_at + n * len(asked.bids))
        parts.append(copy.part(rng.random(len(requests.at)) < times - n) if times - n < 1 else copy)
    joined = Chunk(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(joined.at, kind="stable")
    bids = np.concatenate([asked.bids + n * names for n in range(copies)])
    return Traffic((joined.part(order),), asked.length_s, bids, asked.block_tokens)


def _dense(names: Sequence[int]) -> np.ndarray:
    """Names as small numbers from 0 on: the prefix cache finds its slot by them."""
    return np.unique(np.asarray(names, np.int64), return_inverse=True)[1].astype(np.int64).reshape(-1)


def nearer(chunks: Iterable[Chunk], longest: int, most: int = 100_000) -> Iterator[tuple[Chunk, int]]:
    """The chunks in pieces of at most so many requests, and how many of each were longer than an engine can take."""
    for chunk in chunks:
        for begin in range(0, len(chunk.at), most):
            piece = chunk.part(slice(begin, begin + most))
            fits = piece.prompt + piece.output <= longest
            yield piece.part(fits), int(len(fits) - fits.sum())
