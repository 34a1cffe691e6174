"""ServeGen's description of real traffic, drawn anew: clients with bursts of their own and what they ask for.

A folder has a pair of files per client (`chunk-N-trace.csv`, `chunk-N-dataset.json`; github.com/alibaba/ServeGen). The
trace gives for every ten minutes a rate and the shape of the gaps; the dataset gives distributions of tokens for
stretches of the day. Requests are drawn from these, so the same folder gives any number of days. Randomness is passed
in. Image tokens are added to the text's: pictures themselves are not in the data.
"""

from __future__ import annotations

import ast
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.errors import ScenarioError
from loadtests.traces import Row

_WINDOW_S = 600.0


@dataclass(frozen=True)
class Window:
    """Ten minutes of one client. shape draws gaps of any mean; their mean is set by the rate."""

    start_s: float
    rate_per_s: float
    family: str
    shape: float


@dataclass(frozen=True)
class Sizes:
    """Whole numbers and their probabilities."""

    values: np.ndarray
    shares: np.ndarray

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.choice(self.values, p=self.shares))


@dataclass(frozen=True)
class Client:
    """One client: its windows, and by the start of each stretch of its day what a request holds."""

    windows: tuple[Window, ...]
    sizes: Mapping[float, Mapping[str, Sizes]]


def read_servegen(folder: Path) -> tuple[Client, ...]:
    """The clients of a folder. Raises ScenarioError naming the file."""
    traces = sorted(folder.glob("chunk-*-trace.csv"))
    if not traces:
        raise ScenarioError(f"{folder}: the trace has no chunk-*-trace.csv")
    return tuple(
        Client(_windows(path), _dataset(path.with_name(path.name.replace("-trace.csv", "-dataset.json"))))
        for path in traces
    )


def resample(
    clients: tuple[Client, ...], start_s: float, length_s: float, stream: Callable[[int, int], np.random.Generator]
) -> tuple[Row, ...]:
    """Rows of [start_s, start_s + length_s) of the day. `stream` gives each client and second of a window a random
    stream, so that a replay that begins later is a part of the longer one."""
    rows = [
        Row(at - start_s, *sizes)
        for number, client in enumerate(clients)
        for at, sizes in _requests(client, start_s, start_s + length_s, lambda at, n=number: stream(n, int(at)))
    ]
    return tuple(sorted(rows, key=lambda row: row.at_s))


def _requests(
    client: Client, start: float, end: float, stream: Callable[[float], np.random.Generator]
) -> Iterator[tuple[float, tuple[int, int]]]:
    starts = sorted(client.sizes)
    for window in client.windows:
        if window.start_s + _WINDOW_S <= start or window.start_s >= end or not window.rate_per_s:
            continue
        sizes = client.sizes[max((at for at in starts if at <= window.start_s), default=starts[0])]
        rng = stream(window.start_s)
        at = window.start_s + float(rng.random()) * _gap(window, rng)
        while at < window.start_s + _WINDOW_S:
            pictures = sizes["image_count"].draw(rng)
            prompt = sizes["text_tokens"].draw(rng)
            prompt += sum(sizes["image_tokens"].draw(rng) for _ in range(pictures))
            answer = sizes["output_tokens"].draw(rng)
            if start <= at < end and prompt > 0 and answer > 0:
                yield at, (prompt, answer)
            at += _gap(window, rng)


def _gap(window: Window, rng: np.random.Generator) -> float:
    if window.family == "Weibull":
        mean = math.gamma(1 + 1 / window.shape)
        return float(rng.weibull(window.shape)) / mean / window.rate_per_s
    if window.family == "Gamma":
        return float(rng.gamma(window.shape)) / window.shape / window.rate_per_s
    return float(rng.exponential()) / window.rate_per_s


def _windows(path: Path) -> tuple[Window, ...]:
    found = []
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            try:
                start, rate, _, family, shape = row[:5]
                found.append(Window(float(start), float(rate), family, float(shape)))
            except ValueError:
                raise ScenarioError(f"{path}:{number}: not start, rate, CV, family and parameters: {row}") from None
            if found[-1].rate_per_s and family in ("Weibull", "Gamma") and found[-1].shape <= 0:
                raise ScenarioError(f"{path}:{number}: the shape {shape} is not above 0")
    return tuple(found)


def _dataset(path: Path) -> dict[float, dict[str, Sizes]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        names = ("text_tokens", "image_tokens", "image_count", "output_tokens")
        found = {float(start): {name: _sizes(part[name]) for name in names} for start, part in value.items()}
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ScenarioError(f"{path}: the dataset of a client cannot be read: {error!r}") from error
    if not found:
        raise ScenarioError(f"{path}: the dataset of a client is empty")
    return found


def _sizes(text: str) -> Sizes:
    # The published files hold Python's form of a mapping, as text.
    table = ast.literal_eval(text)
    values = np.array([int(value) for value in table], dtype=int)
    shares = np.array(list(table.values()), dtype=float)
    return Sizes(values, shares / shares.sum())
