"""Budgets and decisions about replicas, as the fleet's metrics tell them. Pure but for what `Decisions` remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from serving.fleet.autoscaling.signals import REASONS
from serving.telemetry.view import Scrape

_KEPT = 50
_TARGET, _COUNT = "flotilla_autoscale_target_replicas", "flotilla_autoscale_decisions_total"


@dataclass(frozen=True)
class Budget:
    """One budget of a tenant, of a model, or of a tenant on a model; the other name is empty. USD; None: no such mark.
    `until`: when it begins anew, Unix seconds."""

    tenant: str
    model: str
    period: str
    spent_usd: float
    soft_usd: float | None
    hard_usd: float | None
    until: float | None

    @property
    def used(self) -> float:
        """What is spent over the mark that comes last."""
        most = self.hard_usd or self.soft_usd
        return self.spent_usd / most if most else 0.0


def budgets(scrape: Scrape) -> tuple[Budget, ...]:
    """All of them, those that are used up most first."""
    marks = scrape.by("flotilla_budget_usd", "tenant", "model", "period", "mark")
    ends = scrape.by("flotilla_budget_end_timestamp_seconds", "tenant", "model", "period")
    found = [
        Budget(*of, spent, marks.get((*of, "soft")), marks.get((*of, "hard")), ends.get(of))
        for of, spent in scrape.by("flotilla_budget_spent_usd", "tenant", "model", "period").items()]
    return tuple(sorted(found, key=lambda b: (-b.used, b.tenant, b.model, b.period)))


@dataclass(frozen=True)
class Scaling:
    """What a model that scales is to have, and what it has. `reasons`: of the decisions since the look before, for
    people."""

    model: str
    target: int
    actual: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """A change of what a model is to have. `at`: when it was seen, Unix seconds."""

    at: float
    model: str
    before: int
    after: int
    reasons: tuple[str, ...]


class Decisions:
    """Tells from one look to the next what was decided meanwhile. Only what was looked at is known."""

    def __init__(self) -> None:
        self._targets: dict[str, int] = {}
        self._counts: dict[tuple[str, ...], float] = {}
        self._why: dict[str, tuple[str, ...]] = {}
        self._seen: deque[Decision] = deque(maxlen=_KEPT)

    def look(self, at: float, scrape: Scrape) -> tuple[tuple[Scaling, ...], tuple[Decision, ...]]:
        """Models that scale as they are now, and changes, the newest first."""
        counts = scrape.by(_COUNT, "model", "reason")
        grown: dict[str, list[str]] = {}
        for (model, reason), count in sorted(counts.items()):
            if count != self._counts.get((model, reason), 0.0 if self._counts else count):
                grown.setdefault(model, []).append(reason)
        self._why |= {model: tuple(reasons) for model, reasons in grown.items()}
        self._counts = counts
        actual = scrape.by("flotilla_replicas", "model")
        now = tuple(self._each(at, scrape, actual))
        return now, tuple(reversed(self._seen))

    def _each(self, at: float, scrape: Scrape, actual: dict[tuple[str, ...], float]) -> Iterator[Scaling]:
        for (model,), value in sorted(scrape.by(_TARGET, "model").items()):
            target, why = int(value), self._why.get(model, ())
            before = self._targets.get(model)
            if before is not None and before != target:
                self._seen.append(Decision(at, model, before, target, _told(r for r in why if r != "steady")))
            self._targets[model] = target
            yield Scaling(model, target, int(actual.get((model,), 0)), _told(why))


def _told(reasons: Iterable[str]) -> tuple[str, ...]:
    return tuple(REASONS.get(reason, reason) for reason in reasons)
