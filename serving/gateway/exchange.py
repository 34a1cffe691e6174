"""One request under way: what is known of it, who may stop it, and the record it ends in."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field

from serving.fleet.records import Outcome, RequestRecord
from serving.fleet.tenants import Principal
from serving.gateway.endpoints import Dialect
from serving.gateway.ports import Spans
from serving.gateway.usage import Usage

CLIENT_CLOSED = 499  # no one receives this status; records and metrics show it


def _new_id() -> str:
    return f"flo-{os.urandom(16).hex()}"


@dataclass
class Answer:
    """What became of one answer. `first_byte_at`: monotonic seconds."""

    code: int = 0
    begun: bool = False
    over: bool = False  # the last message is on its way
    whole: bool = False
    first_byte_at: float | None = None
    usage: Usage | None = None


@dataclass
class Exchange:
    """One request. `stopped`: why it was cut short: gone or slow (the caller), deadline."""

    endpoint: str
    path: str = ""
    dialect: Dialect = "openai"
    recorded: bool = False
    request_id: str = field(default_factory=_new_id)
    began_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    caller_id: str = ""
    principal: Principal | None = None
    model: str = ""
    adapter: str = ""  # as callers name it, with its model
    preset: str = ""  # name@version
    served: str = ""  # the model, with the adapter if there is one
    cold_s: float = 0.0  # waited for a model's first replica
    limited: bool = False  # it holds a reservation
    sent: bool = False  # a replica may have seen it
    told: tuple[tuple[bytes, bytes], ...] = ()  # headers about its limits
    stream: bool = False
    deadline_s: float = 0.0
    answer: Answer = field(default_factory=Answer)
    stopped: str = ""
    spans: Spans | None = None  # of a request that is traced
    task: asyncio.Task[None] | None = None

    def stop(self, reason: str) -> None:
        """Cut it short wherever it is: waiting for a seat, for the replica, or for the caller to read."""
        if not self.stopped and not self.answer.over and self.task is not None:
            self.stopped = reason
            self.task.cancel()

    def about(self) -> dict[str, str]:
        """What a line of the log says of it."""
        return {"request_id": self.request_id, "tenant": self.principal.tenant if self.principal else "",
                "model": self.model}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer carries."""
        found = [(b"x-flotilla-request-id", self.request_id.encode()),
                 (b"x-request-id", (self.caller_id or self.request_id).encode("latin-1"))]
        if self.served:
            found.append((b"x-flotilla-model", self.served.encode()))
        if self.cold_s:
            found.append((b"x-flotilla-cold-start-s", b"%.1f" % self.cold_s))
        if self.preset:
            found.append((b"x-flotilla-preset", self.preset.encode()))
        return [*found, *self.told] if self.told else found

    def record(self, outcome: Outcome) -> RequestRecord:
        """How it ended."""
        answer, who = self.answer, self.principal
        return RequestRecord(
            request_id=self.request_id, caller_id=self.caller_id, tenant=who.tenant if who else "",
            key_id=who.key_id if who else "", model=self.model, endpoint=self.endpoint, code=answer.code,
            outcome=outcome, started_at=self.began_at, duration_s=time.monotonic() - self.began, stream=self.stream,
            ttft_s=answer.first_byte_at - self.began if answer.first_byte_at is not None else None,
            tokens=answer.usage.tokens if answer.usage else None, adapter=self.adapter, preset=self.preset,
        )
