"""The ledger's truth as samples of the metric table.

`samples` is pure. `LedgerSamples` is what a scrape calls: it reads the ledger in a bounded time and adds what takes
longer and is computed beside it, at most every half minute: whether the books add up, break-even, and budgets. May not
happen in here: knowing the database.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from serving.errors import LedgerError
from serving.fleet.money import usd
from serving.fleet.records import TOKEN_KINDS
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.telemetry.background import Background
from serving.telemetry.exporter import Sample, Target

WINDOW_S = 300.0  # the busy ratio looks back this far
SLOW_S = 30.0  # what takes long is computed this seldom
_READ_S = 2.5  # Prometheus gives a scrape no longer than its interval, 5 s in the shipped configuration
_COST, _ALLOCATED = "flotilla_cost_usd_total", "flotilla_allocated_cost_usd_total"


class Against(Protocol):
    """One comparator of a model (`serving.costs.breakeven.Against`)."""

    @property
    def name(self) -> str:
        """As the ledger names it."""

    @property
    def breakeven(self) -> float | None:
        """The utilisation at which both cost the same; None where there is none."""


class Economics(Protocol):
    """A model held against its comparators (`serving.costs.breakeven.BreakEven`)."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def utilisation(self) -> float:
        """What its replicas do over what they could do."""

    @property
    def against(self) -> Sequence[Against]:
        """Its comparators."""


def samples(found: sums.Totals) -> Iterator[Sample]:
    """Counters and states. The samples of `flotilla_cost_usd_total` add up to the bill but for requests under way.

    Idle time and cold starts stand there whole, because what no one is charged with yet shrinks when a request ends,
    and a counter must not; what requests were charged with is a counter of its own.
    """
    yield from _models(found)
    yield from _tenants(found)
    yield from _step_models(found)
    money: dict[tuple[str, str, str], int] = {}
    unmetered = {"gateway": 0, "replica": 0}
    for state in found.sources:
        source = state.record
        for labels, nanousd in (((source.model, source.idle_tenant, "idle"), source.idle_nanousd),
                                ((source.model, source.idle_tenant, "cold_start"), source.cold_nanousd),
                                (("", "", "overhead"), source.overhead_nanousd)):
            if nanousd or (source.role == "replica" and labels[2] != "overhead"):
                money[labels] = money.get(labels, 0) + nanousd
        if source.role in unmetered:
            unmetered[source.role] += source.unmetered
    for labels, nanousd in money.items():
        yield Sample(_COST, labels, usd(nanousd))
    for role, count in unmetered.items():
        yield Sample("flotilla_ledger_unmetered_requests_total", (role,), count)


def _models(found: sums.Totals) -> Iterator[Sample]:
    for name, model in found.models().items():
        if not name:  # the overhead's sources serve none
            continue
        replicas = [s for s in found.replicas if s.model == name]
        yield Sample("flotilla_replicas", (name,), sum(s.alive and s.record.ready for s in replicas))
        yield Sample("flotilla_ledger_folded_steps_total", (name,), sum(s.record.folded_steps for s in replicas))
        for state, ns in (("cold_start", model.cold_ns), ("idle", model.idle_ns), ("busy", model.busy_ns)):
            yield Sample("flotilla_replica_seconds_total", (name, state), ns / 1e9)


def _tenants(found: sums.Totals) -> Iterator[Sample]:
    for total in found.tenants:
        who, amounts = (total.model, total.tenant), total.amounts
        yield Sample(_COST, (*who, "direct"), usd(amounts.direct))
        yield Sample(_COST, (*who, "waste"), usd(amounts.waste))
        yield Sample(_ALLOCATED, (*who, "idle"), usd(amounts.idle))
        yield Sample(_ALLOCATED, (*who, "cold_start"), usd(amounts.cold_start))
        for kind in TOKEN_KINDS:
            yield Sample("flotilla_tokens_total", (*who, kind), total.tokens.of(kind))
        for comparator, nanousd in total.compared.items():
            yield Sample("flotilla_counterfactual_usd_total", (*who, comparator), usd(nanousd))


def _step_models(found: sums.Totals) -> Iterator[Sample]:
    variants: dict[tuple[str, str], list[sums.SourceState]] = {}
    for state in found.replicas:
        if state.alive and state.record.ready:
            variants.setdefault((state.model, state.record.variant), []).append(state)
    for labels, states in variants.items():
        fits = [s.record.fit for s in states]
        errors = [f.error_ratio for f in fits if f is not None and f.error_ratio is not None]
        yield Sample("flotilla_step_model_fitted", labels, all(f is not None for f in fits))
        if errors:
            yield Sample("flotilla_step_model_error_ratio", labels, max(errors))


class BusyWindow:
    """The part of ready replicas' time in which they worked, from absolute sums seen over time."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._lock = threading.Lock()  # scrapes may overlap
        self._seen: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()

    def ratios(self, now: float, sums_of: dict[str, tuple[int, int]]) -> dict[str, float]:
        """By model, from (busy, idle) nanoseconds now. Models whose replicas had no time since are left out, and the
        first call knows none."""
        with self._lock:
            seen = self._seen
            seen.append((now, dict(sums_of)))
            while len(seen) > 1 and seen[1][0] <= now - self._window_s:
                seen.popleft()
            if len(seen) == 1:
                return {}
            before = seen[0][1]
        found = {}
        for model, (busy, idle) in sums_of.items():
            busy_then, idle_then = before.get(model, (0, 0))
            worked, waited = busy - busy_then, idle - idle_then
            if worked >= 0 and waited >= 0 and worked + waited:
                found[model] = worked / (worked + waited)
        return found


class LedgerSamples:
    """What a scrape reads off the ledger. `economics`: every model that can be held against its comparators. `budgets`:
    samples of them."""

    def __init__(self, ledger: Ledger, economics: Callable[[], Iterable[Economics]] = tuple,
                 clock: Callable[[], float] = time.time, budgets: Callable[[], Iterable[Sample]] = tuple) -> None:
        """`clock`: Unix seconds."""
        self._clock, self._busy = clock, BusyWindow()
        self._totals = Background(lambda: sums.totals(ledger, clock()))
        self._residual = Background(lambda: sums.reconcile(ledger).residual_nanousd, clock)
        self._economics = Background(lambda: tuple(economics()), clock)
        self._budgets = Background(lambda: tuple(budgets()), clock)

    def __call__(self) -> list[Sample]:
        """All samples. Raises: LedgerError, also when the ledger does not answer in time."""
        found = self._read()
        made = list(samples(found))
        models = {n: (m.busy_ns, m.idle_ns) for n, m in found.models().items() if n}
        made += [Sample("flotilla_busy_ratio", (model,), ratio)
                 for model, ratio in self._busy.ratios(self._clock(), models).items()]
        residual = self._residual.latest(SLOW_S)
        if residual is not None:
            made.append(Sample("flotilla_attribution_residual_nanousd", (), residual))
        for model in self._economics.latest(SLOW_S) or ():
            made.append(Sample("flotilla_utilisation_ratio", (model.model,), model.utilisation))
            made += [Sample("flotilla_breakeven_utilisation_ratio", (model.model, a.name), a.breakeven)
                     for a in model.against if a.breakeven is not None]
        return made + list(self._budgets.latest(SLOW_S) or ())

    def targets(self) -> list[Target]:
        """Replicas whose own metrics may be scraped. Raises: LedgerError."""
        return [Target(s.record.endpoint, s.model, s.source_id) for s in self._read().replicas
                if s.alive and s.record.ready]

    def _read(self) -> sums.Totals:
        try:
            return self._totals.fresh(_READ_S)
        except TimeoutError as error:
            raise LedgerError(f"the ledger does not answer: {error}") from error


def spools(root: Path) -> Iterator[Sample]:
    """Bytes that wait on this machine, by what stands before the process id in the names of spools under `root`."""
    waiting: dict[str, int] = {}
    for folder in root.iterdir() if root.is_dir() else ():
        kind = folder.name.rsplit("-", 2)[0]
        waiting[kind] = waiting.get(kind, 0) + _bytes(folder)
    for kind, count in sorted(waiting.items()):
        yield Sample("flotilla_ledger_spool_bytes", (kind,), count)


def _bytes(folder: Path) -> int:
    found = 0
    for file in folder.glob("*"):
        try:
            found += file.stat().st_size
        except FileNotFoundError:  # written to the ledger meanwhile
            continue
    return found
