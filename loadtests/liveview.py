"""A tab in Locust's web interface with what Locust itself does not know: TTFT, TPOT, tokens and lateness per model.

Figures come from the workers' records as they arrive, by sketches that keep quantiles within 1%. For watching only; the
report is made from the raw records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from loadtests.sketch import Sketch

_KEY = "models"
_COLUMNS = {
    "model": "Model", "requests": "# Requests", "failed": "# Fails", "tokens_per_s": "Output tokens/s",
    "ttft_p50": "TTFT p50 (ms)", "ttft_p99": "TTFT p99 (ms)", "due_p99": "TTFT from scheduled p99 (ms)",
    "tpot_p50": "TPOT p50 (ms)", "tpot_p99": "TPOT p99 (ms)", "late_p99": "Lateness p99 (ms)", "stage": "Stage",
}


class Seen(msgspec.Struct):
    """What the tab needs of a record."""

    model: str
    stream: bool
    turn: int
    scheduled: float
    sent: float
    ended: float
    first_content: float | None
    last_content: float | None
    completion_tokens: int | None
    error: Any
    stage: str
    open_loop: bool


class _Model:
    """One row."""

    def __init__(self) -> None:
        self.requests = self.failed = self.tokens = 0
        self.stage = ""
        self.ttft, self.due, self.tpot, self.late = Sketch(), Sketch(), Sketch(), Sketch()

    def take(self, seen: Seen) -> None:
        self.requests += 1
        self.stage = seen.stage
        if seen.open_loop and seen.turn == 1:
            self.late.add((seen.sent - seen.scheduled) * 1e3)
        if seen.error:
            self.failed += 1
            return
        self.tokens += seen.completion_tokens or 0
        if seen.stream and seen.first_content is not None and seen.last_content is not None:
            self.ttft.add((seen.first_content - seen.sent) * 1e3)
            self.due.add((seen.first_content - seen.scheduled) * 1e3)
            if (seen.completion_tokens or 0) > 1:
                self.tpot.add((seen.last_content - seen.first_content) * 1e3 / (seen.completion_tokens - 1))


class LiveView:
    """The rows, and their way into the interface."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._decode = msgspec.json.Decoder(Seen).decode
        self._since = time.monotonic()

    def clear(self) -> None:
        """Another run begins."""
        self._models, self._since = {}, time.monotonic()

    def take(self, lines: Sequence[str]) -> None:
        """Records as JSON."""
        for line in lines:
            seen = self._decode(line)
            self._models.setdefault(seen.model, _Model()).take(seen)

    def rows(self) -> list[dict[str, Any]]:
        """The table, a row per model."""
        passed = max(1.0, time.monotonic() - self._since)
        return [
            {
                "model": name, "requests": m.requests, "failed": m.failed,
                "tokens_per_s": round(m.tokens / passed, 1),
                "ttft_p50": _ms(m.ttft, 0.5), "ttft_p99": _ms(m.ttft, 0.99), "due_p99": _ms(m.due, 0.99),
                "tpot_p50": _ms(m.tpot, 0.5), "tpot_p99": _ms(m.tpot, 0.99), "late_p99": _ms(m.late, 0.99),
                "stage": m.stage,
            }
            for name, m in sorted(self._models.items())
        ]

    def install(self, environment: Any) -> None:
        """Add the tab, and its rows to what the interface asks for every second."""
        from flask import request

        structure = [{"key": key, "title": title} for key, title in _COLUMNS.items()]
        environment.web_ui.template_args |= {
            "extended_tabs": [{"title": "Models", "key": _KEY}],
            "extended_tables": [{"key": _KEY, "structure": structure}],
        }

        @environment.web_ui.app.after_request
        def add_rows(response):  # noqa: ANN001, ANN202
            if request.path.endswith("/stats/requests") and response.is_json:
                rows = {"extended_stats": [{"key": _KEY, "data": self.rows()}]}
                response.set_data(json.dumps({**response.get_json(), **rows}))
            return response


def _ms(sketch: Sketch, share: float) -> float | str:
    value = sketch.quantile(share)
    return "" if value is None else round(value, 1)
