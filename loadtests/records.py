"""One raw record per request: the truth that every figure of the report is computed from.

Times are seconds on one monotonic clock that starts with the run (`run.json` has its start as unix time), so
records of one run can be compared with each other to the microsecond, whichever worker wrote them and in
whichever pass. A record keeps what was seen; definitions of TTFT and the like are applied in `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtests.errors import ReportError

Api = Literal["chat", "embeddings"]


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
    turn it is the previous reply plus the think time, and in a closed loop the end of the user's pause: only
    turn 1 of an open loop says anything about dispatch lateness.
    first_content, last_content: arrival of the first and last chunk that carried content, reasoning text or a
    tool call; for a request that was not streamed both are when the whole answer had arrived. None if nothing
    arrived.
    first_answer: the first chunk that was no reasoning; None where the answer was not streamed or never came.
    first_event, last_event: a stream's first event with `choices` (an empty role chunk too) and the last one of all
    (the usage chunk), as other tools take a request to begin and end.
    gaps_ms: every gap between content chunks in order; inter_chunk_ms sums them up.
    cost_usd: `usage.cost` of the response, what the endpoint itself charged for it.
    stage: name of the stage of `run.json` in which the request was due.
    items: inputs of one embeddings request, 1 for a chat.
    open_loop: whether `scheduled` was known before the run.
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
    api: Api = "chat"
    stage: str = ""
    worker: int = 0
    first_answer: float | None = None
    first_event: float | None = None
    last_event: float | None = None
    gaps_ms: tuple[float, ...] = ()
    tool_calls: int = 0
    images: int = 0
    items: int = 1
    open_loop: bool = True

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def lateness_s(self) -> float | None:
        """Seconds between due and sent, for requests of the open-loop schedule only."""
        return self.sent - self.scheduled if self.turn == 1 and self.open_loop else None


class RecordWriter:
    """Appends records to a JSON-lines file, each one flushed so that an interrupted run keeps what it has."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, record: Record) -> None:
        self.write_line(record.model_dump_json())

    def write_line(self, line: str) -> None:
        """A record that is JSON already, without its newline."""
        self._file.write(line + "\n")
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
