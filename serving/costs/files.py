"""Tables into files: CSV and Parquet, row after row, exact, and whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from serving.errors import ConfigError

Type = Literal["text", "whole", "decimal", "number", "moment", "flag"]
Value = str | int | float | bool | Decimal | datetime | None
Row = Mapping[str, Value]
_BATCH = 5_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column and what is in it. `digits`: of a decimal, after the point."""

    name: str
    type: Type
    digits: int = 9


def defused(text: str) -> str:
    """Text of strangers for a spreadsheet: what would be read as a formula gets an apostrophe before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its place when the block ends well; else nothing has changed.

    Raises: ConfigError when it cannot be written there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            with open(draft, "rb") as written:
                os.fsync(written.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error


def write_text(path: Path, text: str) -> None:
    """A file of text. Raises: ConfigError."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """RFC 4180, UTF-8, one header line; decimals with all their digits, moments as ISO 8601 in UTC. Returns: rows.

    Raises: ConfigError.
    """
    written = 0
    with replacing(path) as draft, open(draft, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow([c.name for c in columns])
        for row in rows:
            out.writerow([_text(row.get(c.name), c) for c in columns])
            written += 1
    return written


def write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Parquet with decimals and UTC timestamps, some thousand rows at a time. Returns: rows. Raises: ConfigError."""
    import pyarrow  # takes half a second, which no other command should pay
    from pyarrow import parquet

    of: dict[str, Callable[[Column], Any]] = {
        "text": lambda c: pyarrow.string(), "whole": lambda c: pyarrow.int64(), "flag": lambda c: pyarrow.bool_(),
        "number": lambda c: pyarrow.float64(), "decimal": lambda c: pyarrow.decimal128(38, c.digits),
        "moment": lambda c: pyarrow.timestamp("us", tz="UTC"),
    }
    schema = pyarrow.schema([pyarrow.field(c.name, of[c.type](c)) for c in columns])
    written, rest = 0, iter(rows)
    with replacing(path) as draft, parquet.ParquetWriter(draft, schema, compression="zstd") as out:
        while batch := list(islice(rest, _BATCH)):
            out.write_table(pyarrow.Table.from_pylist([dict(row) for row in batch], schema))
            written += len(batch)
    return written


def moment(unix_s: float) -> datetime:
    """Unix seconds as a moment in UTC."""
    return datetime.fromtimestamp(unix_s, UTC)


def iso(at: datetime) -> str:
    """ISO 8601 in UTC, with as many digits of a second as there are."""
    return at.astimezone(UTC).isoformat(timespec="microseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _text(value: Value, column: Column) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return iso(value)
    return f"{value:.{column.digits}f}" if isinstance(value, Decimal) else str(value)
