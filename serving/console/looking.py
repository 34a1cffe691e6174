"""One look at the fleet: its metrics, and what only the ledger and the run's state know. Runs in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from serving.console.snapshot import NOTHING_YET, Slow, Snapshot, models, saved
from serving.console.watching import Decisions, budgets
from serving.fleet.catalogue import Fleet
from serving.telemetry.background import Background
from serving.telemetry.promises import promised
from serving.telemetry.view import Scrape, Window

EVERY_S = 2.0
WINDOW_S = 30.0
_SLOW_S = 5.0


@dataclass(frozen=True)
class Run:
    """What the run's state says. `failed`: models that did not come up, and why; `real`: models that were given other
    weights than the fleet file's."""

    failed: Mapping[str, str]
    real: Mapping[str, str]


class Look:
    """Call it once per tick, never twice at a time; it never raises. `scrape`: the metrics now; `slow`: what the ledger
    knows, computed beside and at most every few seconds; `clock`: Unix seconds."""

    def __init__(self, fleet: Fleet, scrape: Callable[[], Scrape], slow: Callable[[], Slow], run: Callable[[], Run],
                 every_s: float = EVERY_S, window_s: float = WINDOW_S, clock: Callable[[], float] = time.time) -> None:
        self._fleet, self._scrape, self._run, self._clock = fleet, scrape, run, clock
        self._slow, self._decisions = Background(slow), Decisions()
        self._slos = {name: m.slo for name, m in fleet.models.items()}
        self._window = Window(self._slos, window_s)
        self._last = Snapshot(fleet.name, 0.0, every_s, window_s, (), 0.0, None, (), None, None)

    def __call__(self) -> Snapshot:
        """The fleet now; where it cannot be seen, as it was last, with what is wrong."""
        now = self._clock()
        try:
            self._last = self._look(now)
        except (OSError, ValueError) as error:
            self._last = replace(self._last, at=now, trouble=f"the fleet's metrics cannot be read: {error}")
        return self._last

    def _look(self, now: float) -> Snapshot:
        scrape = self._scrape()
        seen, slow, run = self._window.add(scrape), self._slow.latest(_SLOW_S) or NOTHING_YET, self._run()
        found = models(self._fleet, seen, slow, run.failed, run.real)
        scaling, decisions = self._decisions.look(now, scrape)
        answered = sum(m.requests_per_s for m in found if m.usd_per_request is not None)
        charged = sum(m.requests_per_s * m.usd_per_request for m in found if m.usd_per_request is not None)
        return replace(
            self._last, at=now, models=found, usd_per_hour=seen.usd_per_hour,
            usd_per_request=charged / answered if answered else None, saved=saved(self._fleet, scrape),
            ledger_up=seen.ledger_up, residual_nanousd=seen.residual_nanousd, failures=slow.failures,
            budgets=budgets(scrape), scaling=scaling, decisions=decisions,
            promises=promised(self._slos, scrape), trouble="")
