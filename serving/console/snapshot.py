"""What the page shows at one moment, as a value that becomes JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.console.watching import Budget, Decision, Scaling
from serving.costs.figures import saving
from serving.fleet.catalogue import Fleet
from serving.fleet.modelspec import ModelSpec
from serving.telemetry.promises import Promised
from serving.telemetry.view import FleetView, ModelView, Scrape

State = Literal["serving", "starting", "asleep", "down", "failed", "unknown"]
_COST, _THEIRS = "flotilla_cost_usd_total", "flotilla_counterfactual_usd_total"


@dataclass(frozen=True)
class Saved:
    """A comparator. `saving`: 0.9 is 90% cheaper than it, negative is dearer; None: nothing to compare yet."""

    name: str
    role: str
    saving: float | None


@dataclass(frozen=True)
class Model:
    """A model now. Rates and quantiles over the look's window, as `telemetry.view.ModelView` has them; seconds, USD.

    `why`: what a state other than serving comes from, for people. `noise`: its weights are random.
    """

    name: str
    state: State
    why: str
    noise: bool
    chats: bool
    replicas: int
    starting: int
    in_flight: int
    queued: int
    requests_per_s: float
    errors_per_s: float
    tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_slo_s: float
    tpot_p50_s: float | None
    tpot_slo_s: float
    late: bool
    usd_per_hour: float
    usd_per_request: float | None
    busy: float | None
    compared: tuple[Saved, ...]


@dataclass(frozen=True)
class Failure:
    """A request that did not get its answer."""

    request_id: str
    at: float
    tenant: str
    model: str
    endpoint: str
    code: int | None
    outcome: str


@dataclass(frozen=True)
class Slow:
    """What the ledger is asked more seldom. `starting`: replicas by model that are alive and not ready."""

    starting: Mapping[str, int]
    failures: tuple[Failure, ...]


NOTHING_YET = Slow({}, ())


@dataclass(frozen=True)
class Snapshot:
    """The fleet at `at`, Unix seconds. `window_s`: what rates are over. `saved`: the whole fleet, overhead included,
    held against the comparators of each role. `decisions`: those seen while someone looked. `trouble`: why the look
    could not see, for people."""

    fleet: str
    at: float
    every_s: float
    window_s: float
    models: tuple[Model, ...]
    usd_per_hour: float
    usd_per_request: float | None
    saved: tuple[Saved, ...]
    ledger_up: bool | None
    residual_nanousd: float | None
    failures: tuple[Failure, ...] = ()
    budgets: tuple[Budget, ...] = ()
    scaling: tuple[Scaling, ...] = ()
    decisions: tuple[Decision, ...] = ()
    promises: tuple[Promised, ...] = ()
    trouble: str = ""

    def trace(self) -> dict[str, Any]:
        """What curves over time are made of: by model tokens per second, time to first token, requests in flight,
        USD per hour."""
        return {"at": self.at, "models": {m.name: (round(m.tokens_per_s, 2), m.ttft_p50_s, m.in_flight, m.usd_per_hour)
                                          for m in self.models}}


def models(fleet: Fleet, seen: FleetView, slow: Slow, failed: Mapping[str, str], real: Mapping[str, str]
           ) -> tuple[Model, ...]:
    """`failed`: models that did not come up, with what went wrong. `real`: those whose weights were given instead of
    what the fleet file says."""
    return tuple(_model(fleet.models[m.model], m, seen, slow, failed, m.model in real) for m in seen.models)


def _model(spec: ModelSpec, m: ModelView, seen: FleetView, slow: Slow, failed: Mapping[str, str], real: bool) -> Model:
    starting = slow.starting.get(m.model, 0)
    state, why = _state(spec, m, starting, seen.ledger_up, failed.get(m.model))
    roles = {c.name: c.role for c in spec.comparators}
    compared = tuple(Saved(name, roles[name], saving(1.0, ratio)) for name, ratio in sorted(m.apis.items())
                     if name in roles)
    runner = spec.engine.args.get("runner", "generate")
    return Model(
        m.model, state, why, spec.small_family is not None and not real, runner in ("auto", "generate"), m.replicas,
        starting, m.in_flight, m.queued, m.requests_per_s, m.errors_per_s, m.tokens_per_s, m.ttft_p50_s, m.ttft_p95_s,
        spec.slo.ttft_ms / 1e3, m.tpot_p50_s, spec.slo.tpot_ms / 1e3, m.late, m.usd_per_hour, m.usd_per_request, m.busy,
        tuple(sorted(compared, key=lambda c: _ORDER.index(c.role))))


_ORDER = ("same_model_hosted", "cheapest_proprietary", "frontier")


def _state(spec: ModelSpec, m: ModelView, starting: int, ledger_up: bool | None, failed: str | None
           ) -> tuple[State, str]:
    if m.replicas:
        return "serving", ""
    if failed is not None:
        return "failed", failed
    if ledger_up is False:
        return "unknown", "the ledger, which knows the replicas, cannot be read"
    if starting:
        return "starting", f"{starting} of its replicas {'is' if starting == 1 else 'are'} starting"
    if spec.replicas.min == 0:
        return "asleep", "at zero; the next request wakes it"
    return "down", f"none of its replicas takes requests; {spec.replicas.min} should"


def saved(fleet: Fleet, scrape: Scrape) -> tuple[Saved, ...]:
    """What the traffic so far has cost, all of it, against what its tokens would have cost by role of comparator.

    A role is left out where a model with traffic has no comparator of it: the sums would be of different traffic.
    """
    theirs = scrape.by(_THEIRS, "model", "comparator")
    ours = sum(scrape.by(_COST).values())
    found = []
    for role in _ORDER:
        chosen = {name: c.name for name, m in fleet.models.items() for c in m.comparators if c.role == role}
        with_traffic = {model for model, _ in theirs}
        if not with_traffic or not with_traffic <= set(chosen):
            continue
        whole = sum(usd for (model, api), usd in theirs.items() if chosen[model] == api)
        names = sorted({chosen[m] for m in with_traffic})
        found.append(Saved(names[0] if len(names) == 1 else f"{len(names)} models", role, saving(ours, whole)))
    return tuple(found)
