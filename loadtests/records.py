"""One raw record per request: the truth that every figure of the report is computed from.

Times are seconds on one monotonic clock that starts with the run (`run.json` has its start as unix time), so
records of one run can be compared with each other to the microsecond. A record keeps what was seen;
definitions of TTFT and the like are applied in `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.errors import ReportError


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Gaps(_Row):
    """Gaps between content chunks of one response, milliseconds; inter-chunk, not inter-token."""

    count: int
    p50: float
    p99: float
    max: float


class RequestError(_Row):
    """Why a request failed. kind: connect, transport, timeout, http_<status>, error_event, truncated,
    bad_json, empty, interrupted.
    """

    kind: str
    detail: str


class Record(_Row):
    """One request.

    scheduled: when it was due. For turn 1 that is the arrival's time in the open-loop schedule; for a later
    turn it is the previous reply plus the think time, so only turn 1 says anything about dispatch lateness.
    first_content, last_content: arrival of the first and last chunk that carried content or reasoning text;
    for a request that was not streamed both are when the whole answer had arrived. None if nothing arrived.
    cost_usd: `usage.cost` of the response, what the endpoint itself charged for it.
    """

    request_id: str
    server_request_id: str | None
    model: str
    user_kind: str
    arrival: int
    turn: int
    stream: bool
    warmup: bool
    max_tokens: int
    scheduled: float
    sent: float
    first_content: float | None
    last_content: float | None
    ended: float
    status: int | None
    error: RequestError | None
    chunks: int
    inter_chunk_ms: Gaps | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    finish_reason: str | None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def lateness_s(self) -> float | None:
        """Seconds between due and sent, for requests of the open-loop schedule only."""
        return self.sent - self.scheduled if self.turn == 1 else None


class RecordWriter:
    """Appends records to a JSON-lines file, each one flushed so that an interrupted run keeps what it has."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, record: Record) -> None:
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_records(path: Path) -> Iterator[Record]:
    """Records of a file. A last line without its newline (a run cut off while writing) is left out.

    Raises ReportError for a missing file or a line that is no record.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    return
                try:
                    yield Record.model_validate_json(line)
                except ValidationError as error:
                    raise ReportError(f"{path}:{number}: not a record: {error.errors()[0]['msg']}") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}") from error
