"""Requests that others really got, read from the files they are published in: when, how long, and what they share.

Every reader answers the same: rows in order of time, in seconds from the first one. Nothing is random in here and no
token is counted; ServeGen's files, which describe distributions instead of requests, are drawn in `resample`.

Formats: Azure 2023 and 2024 (CSV, Azure/AzurePublicDataset), Mooncake (JSON lines, arXiv 2407.00079; hash_ids
name blocks of 512 tokens), BurstGPT (CSV, arXiv 2401.17644), and our own JSON lines.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.errors import ScenarioError

#: Tokens of one block that a Mooncake hash_id names.
MOONCAKE_BLOCK = 512

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURSTGPT = ("Timestamp", "Model", "Request tokens", "Response tokens")
_JSONL = ("at_s", "input_tokens", "output_tokens", "model", "blocks", "block_tokens")


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace. at_s: seconds from the trace's first row. blocks: names of pieces of the prompt, of
    `block_tokens` each (the last may be shorter); equal names in two prompts stand for equal text."""

    at_s: float
    input_tokens: int
    output_tokens: int
    model: str = ""
    blocks: tuple[int, ...] = ()
    block_tokens: int = 0


def read_trace(path: Path, kind: str) -> tuple[Row, ...]:
    """The rows of a file that are requests with an answer, in order of time.

    Raises ScenarioError naming the line for a file that is missing, empty or not of the format.
    """
    readers = {"azure": _azure, "mooncake": _mooncake, "burstgpt": _burstgpt, "jsonl": _jsonl}
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in readers[kind](path, lines) if row.input_tokens > 0 and row.output_tokens > 0]
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: the trace cannot be read: {error}") from error
    if not rows:
        raise ScenarioError(f"{path}: the trace has no requests")
    rows.sort(key=lambda row: row.at_s)
    first = rows[0].at_s
    return tuple(Row(r.at_s - first, r.input_tokens, r.output_tokens, r.model, r.blocks, r.block_tokens) for r in rows)


def _azure(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for where, row in _table(path, lines, _AZURE):
        at, prompt, answer = (row[name] for name in _AZURE)
        yield Row(_moment(where, at), _whole(where, prompt), _whole(where, answer))


def _burstgpt(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    # Requests that failed have no response tokens; they are left out with everything else that has no answer.
    for where, row in _table(path, lines, _BURSTGPT):
        at, model, prompt, answer = (row[name] for name in _BURSTGPT)
        yield Row(_number(where, at), _whole(where, prompt), _whole(where, answer), model)


def _mooncake(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for where, row in _objects(path, lines):
        need = ("timestamp", "input_length", "output_length", "hash_ids")
        at, prompt, answer, ids = _fields(where, row, need)
        blocks = tuple(_whole(where, one) for one in _list(where, ids))
        yield Row(_number(where, at) / 1e3, _whole(where, prompt), _whole(where, answer), "", blocks, MOONCAKE_BLOCK)


def _jsonl(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for where, row in _objects(path, lines):
        if unknown := sorted(row.keys() - set(_JSONL)):
            raise ScenarioError(f"{where}: unknown key {unknown[0]!r}; known keys: {', '.join(_JSONL)}")
        at, prompt, answer = _fields(where, row, _JSONL[:3])
        blocks = tuple(_whole(where, one) for one in _list(where, row.get("blocks", [])))
        size = _whole(where, row.get("block_tokens", MOONCAKE_BLOCK if blocks else 0))
        model = str(row.get("model", ""))
        yield Row(_number(where, at), _whole(where, prompt), _whole(where, answer), model, blocks, size)


def _table(path: Path, lines: Iterable[str], need: Iterable[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    reader = csv.DictReader(lines)
    if missing := [name for name in need if name not in (reader.fieldnames or ())]:
        there = ", ".join(reader.fieldnames or ()) or "nothing"
        raise ScenarioError(f"{path}:1: the trace has no column {missing[0]!r}; it has {there}")
    for row in reader:
        if None in row.values():
            raise ScenarioError(f"{path}:{reader.line_num}: the row is shorter than the header")
        yield f"{path}:{reader.line_num}", row


def _objects(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ScenarioError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ScenarioError(f"{path}:{number}: not an object")
        yield f"{path}:{number}", value


def _fields(where: str, row: Mapping[str, Any], need: Iterable[str]) -> list[Any]:
    if missing := [name for name in need if name not in row]:
        raise ScenarioError(f"{where}: the row has no {missing[0]!r}")
    return [row[name] for name in need]


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ScenarioError(f"{where}: {value!r} is no list")
    return value


def _number(where: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ScenarioError(f"{where}: {value!r} is no number") from None


def _whole(where: str, value: Any) -> int:
    number = _number(where, value)
    if number != int(number) or number < 0:
        raise ScenarioError(f"{where}: {value!r} is no whole number of tokens")
    return int(number)


def _moment(where: str, text: str) -> float:
    """Unix seconds of a timestamp with up to seven decimals and perhaps an offset; without one it is UTC."""
    head, _, tail = text.strip().partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    zone = tail[len(digits):]
    try:
        moment = datetime.fromisoformat(head + zone)
        fraction = float(f"0.{digits}") if digits else 0.0
    except ValueError:
        raise ScenarioError(f"{where}: {text!r} is no timestamp") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() + fraction
