"""A tab in Locust's web interface with what Locust itself does not know: TTFT, TPOT, tokens, objectives, cost and
lateness, per model and in all.

Figures come from the workers' records as they arrive, by sketches that keep quantiles within 1%. For watching only; the
report is made from the raw records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadtests import metrics
from loadtests.report import figures
from loadtests.scenario import Slo
from loadtests.sketch import Sketch

_KEY = "models"
_COLUMNS = {
    "model": "Model", "requests": "# Requests", "failed": "# Fails", "in_slo": "In SLO",
    "cost": "Cost per request", "tokens_per_s": "Output tokens/s",
    "ttft_p50": "TTFT p50 (ms)", "ttft_p99": "TTFT p99 (ms)", "due_p99": "TTFT from scheduled p99 (ms)",
    "tpot_p50": "TPOT p50 (ms)", "tpot_p99": "TPOT p99 (ms)", "late_p99": "Lateness p99 (ms)", "stage": "Stage",
}


_ALL = "all"


class Seen(msgspec.Struct):
    """What the tab needs of a record, under a record's names: `metrics` takes it for one."""

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
    cost_usd: float | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


class _Model:
    """One row."""

    def __init__(self) -> None:
        self.requests = self.failed = self.tokens = 0
        self.judged = self.good = self.priced = 0
        self.cost_usd = 0.0
        self.stage = ""
        self.ttft, self.due, self.tpot, self.late = Sketch(), Sketch(), Sketch(), Sketch()

    def take(self, seen: Seen, slo: Slo | None) -> None:
        self.requests += 1
        self.stage = seen.stage
        if slo is not None:
            self.judged += 1
            self.good += metrics.is_good(seen, slo)
        if seen.open_loop and seen.turn == 1:
            self.late.add((seen.sent - seen.scheduled) * 1e3)
        if not seen.ok:
            self.failed += 1
            return
        self.tokens += seen.completion_tokens or 0
        if seen.cost_usd is not None:
            self.priced, self.cost_usd = self.priced + 1, self.cost_usd + seen.cost_usd
        for sketch, value in ((self.ttft, metrics.ttft_ms(seen)), (self.due, metrics.ttft_from_scheduled_ms(seen)),
                              (self.tpot, metrics.tpot_ms(seen))):
            if value is not None:
                sketch.add(value)

    def row(self, name: str, until_s: float) -> dict[str, Any]:
        return {
            "model": name, "requests": self.requests, "failed": self.failed,
            "in_slo": figures.percent(self.good / self.judged) if self.judged else figures.DASH,
            "cost": figures.usd(self.cost_usd / self.priced) if self.priced else figures.DASH,
            "tokens_per_s": round(self.tokens / until_s, 1),
            "ttft_p50": _ms(self.ttft, 0.5), "ttft_p99": _ms(self.ttft, 0.99), "due_p99": _ms(self.due, 0.99),
            "tpot_p50": _ms(self.tpot, 0.5), "tpot_p99": _ms(self.tpot, 0.99), "late_p99": _ms(self.late, 0.99),
            "stage": self.stage,
        }


class LiveView:
    """The rows, and their way into the interface."""

    def __init__(self, slos: Mapping[str, Slo | None]) -> None:
        self._slos = slos
        self._models: dict[str, _Model] = {}
        self._decode = msgspec.json.Decoder(Seen).decode
        self._until_s = 1.0

    def clear(self) -> None:
        """Another run begins."""
        self._models, self._until_s = {}, 1.0

    def take(self, lines: Sequence[str]) -> None:
        """Records as JSON."""
        for line in lines:
            seen = self._decode(line)
            slo = self._slos.get(seen.model)
            self._until_s = max(self._until_s, seen.ended)
            for name in (seen.model, _ALL):
                self._models.setdefault(name, _Model()).take(seen, slo)

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row per model, and where there are several one of all."""
        names = sorted(set(self._models) - {_ALL})
        return [self._models[name].row(name, self._until_s) for name in (*names, *((_ALL,) if len(names) > 1 else ()))]

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
    return figures.DASH if value is None else round(value, 1)
