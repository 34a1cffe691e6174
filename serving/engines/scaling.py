"""Ray Serve's autoscaler, asked by us: its AutoscalingContext in, a number of replicas out.

Requests reach replicas past Ray Serve, so what it counts itself says nothing. Replicas and gateways tell what matters
(`fleet.autoscaling.told`), Ray carries it to its controller, and there these classes run: one `FollowLoad` for each
model, one `Listen` for the gateways. They decide nothing themselves: `fleet.autoscaling` does, and the simulator asks
the same code. Light: the controller must not load vLLM. May not happen in here: rules.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serving.engines.whileused import from_zero
from serving.fleet.autoscaling import Decision, Load, Policy, Variant, decide
from serving.fleet.autoscaling.deciding import Claim, within
from serving.fleet.autoscaling.gathering import Gathering, Heard
from serving.fleet.autoscaling.learning import Learning
from serving.fleet.autoscaling.signals import REASONS, State
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.autoscaling.spec import ScalingSpec
from serving.fleet.autoscaling.told import GatewayTold, ReplicaTold
from serving.fleet.catalogue import Fleet
from serving.fleet.money import nanousd
from serving.fleet.observing import LogSpec
from serving.fleet.slos import Slo
from serving.fleet.stepmodel import StepModel
from serving.telemetry import logs
from serving.telemetry.scaling import ScalingMeter

log = logging.getLogger("flotilla.scaling")
_TELL_S = 2.0  # how often replicas and gateways tell
_DECIDE_S = 2.0
_STALE_S = 30.0  # what was told so long ago counts no more
_START_S = 60.0  # of a replica of which none has been seen yet
_UNBOUNDED = 10**9  # KV tokens, tokens of a step, where the engine does not say
_NOTHING = StepModel()  # stands where no step model is known, and is not asked
_EVERYWHERE = {"metrics_interval_s": _TELL_S, "look_back_period_s": 5 * _TELL_S}


@dataclass(frozen=True)
class Place:
    """Where decisions are told. counters: folder of Prometheus' counters; log: a file; empty: not counted, and the
    controller's own log."""

    counters: str = ""
    log: str = ""


NOWHERE = Place()


def scales(fleet: Fleet, name: str) -> bool:
    """Whether our policy decides about a model's replicas."""
    spec = fleet.models[name]
    return spec.scaling.policy == "ours" and spec.replicas.max > spec.replicas.min


def of_model(fleet: Fleet, name: str, place: Place) -> dict[str, Any]:
    """Ray Serve's autoscaling configuration of a model."""
    spec = fleet.models[name]
    least, most = spec.replicas.min, spec.replicas.max
    if not scales(fleet, name):
        return {"min_replicas": least, "max_replicas": most} if least else from_zero(most, spec.scaling.zero_after_s)
    cap = fleet.scaling.max_usd_per_hour
    told = {"model": name, "least": least, "most": most, "seats": spec.engine.max_num_seqs,
            "slo": spec.slo.model_dump(mode="json"), "place": asdict(place), "form": fleet.logs.form,
            "spec": spec.scaling.model_dump(mode="json", exclude_defaults=True),
            "fleet_cap": None if cap is None else nanousd(cap)}
    return {"min_replicas": least, "max_replicas": most, "upscale_delay_s": 0, "downscale_delay_s": 0, **_EVERYWHERE,
            "policy": {"policy_function": "serving.engines.policies:Model", "policy_kwargs": told}}


def of_gateways(fleet: Fleet) -> dict[str, Any]:
    """What Ray Serve is told of the number of gateways: that of the fleet file. Where a model scales, it listens to
    them, which it does only to deployments that could scale themselves."""
    count = fleet.gateway.replicas
    if not any(scales(fleet, name) for name in fleet.models):
        return {"num_replicas": count}
    return {"autoscaling_config": {"min_replicas": count, "max_replicas": count, **_EVERYWHERE,
                                   "policy": {"policy_function": "serving.engines.policies:Gateways"}}}


@dataclass
class Board:
    """What the policies of one controller know together: each gateway's last words, and what each model claims."""

    gateways: dict[str, Heard[Mapping[str, float]]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)


BOARD = Board()  # one per controller


def heard(context: Any) -> dict[str, Heard[Mapping[str, float]] | None]:
    """What each running replica of a deployment has told last. `context`: Ray's AutoscalingContext."""
    found: dict[Any, tuple[float, dict[str, float]]] = {}
    for name, by_replica in (context.raw_metrics or {}).items():
        for replica, series in by_replica.items():
            if series:
                at, numbers = found.get(replica, (0.0, {}))
                numbers[name] = float(series[-1].value)
                found[replica] = (max(at, float(series[-1].timestamp)), numbers)
    return {str(r): Heard(*found[r]) if r in found else None for r in context.running_replicas}


class Listen:
    """The gateways' policy: hears what they tell, and leaves their number alone."""

    def __init__(self, board: Board = BOARD) -> None:
        self._board, self._next_s = board, 0.0

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """As many gateways as there are to be."""
        if context.current_time >= self._next_s:
            self._next_s = context.current_time + _DECIDE_S / 2
            self._board.gateways = {name: h for name, h in heard(context).items() if h is not None}
        return context.target_num_replicas, {}


class FollowLoad:
    """A model's policy."""

    def __init__(self, model: str, least: int, most: int, seats: int, slo: dict[str, Any], spec: dict[str, Any],
                 fleet_cap: int | None, form: str = "human", place: dict[str, str] | None = None,
                 board: Board = BOARD, meter: ScalingMeter | None = None) -> None:
        """All but the last two as `of_model` made them."""
        self._model, self._bounds, self._seats = model, (least, most), seats
        self._slo, self._spec = Slo.model_validate(slo), ScalingSpec.model_validate(spec)
        self._fleet_cap, self._board = fleet_cap, board
        self._gathering = Gathering()
        self._state: State | None = None
        self._next_s, self._last = 0.0, ""
        where = Place(**(place or {}))
        self._meter = meter or ScalingMeter(where.counters)
        _logging(form, where.log)
        self._rule, self._learning = SloRule(**self._spec.rule), Learning(**self._spec.rule)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many replicas there should be. `context`: Ray's AutoscalingContext."""
        if context.current_time < self._next_s:
            return context.target_num_replicas, {}
        self._next_s = context.current_time + _DECIDE_S
        try:
            return self._decide(context), {}
        except Exception:  # Ray would log it ten times a second, and stop to scale anything
            log.exception("model %s: no decision; %d replicas stay", self._model, context.target_num_replicas)
            return context.target_num_replicas, {}

    def _decide(self, context: Any) -> int:
        target, now = context.target_num_replicas, context.current_time
        load = self._load(context, now)
        variant, learnt = self._variant()
        policy = Policy(self._rule if learnt else self._learning, (variant,), self._slo, self._spec.zero_after_s,
                        _STALE_S, self._spec.spares, self._spec.schedule)
        state = self._state or State((target,))
        if state.target != (target,):  # Ray woke it, or bounds of its own held
            if state.target == (0,):
                self._tell(Decision((target,), "wake", state), (0,), load)
            state = replace(state, target=(target,))
        decision = decide(load, policy, state, now)
        cap = self._spec.max_usd_per_hour
        self._board.claims[self._model] = Claim(
            decision, (variant,), None if cap is None else nanousd(cap), self._spec.priority,
            self._spec.value_usd_per_hour)
        decision = within(self._board.claims, self._fleet_cap)[self._model]
        self._state = decision.state
        self._tell(decision, (target,), load)
        return decision.total

    def _load(self, context: Any, now: float) -> Load | None:
        replicas = {name: None if h is None or (told := ReplicaTold.of(h.told)) is None else Heard(h.at_s, told)
                    for name, h in heard(context).items()}
        gateways = {name: Heard(h.at_s, told) for name, h in self._board.gateways.items()
                    if (told := GatewayTold.of(h.told, self._model)) is not None}
        starting = max(0, context.target_num_replicas - context.current_num_replicas)
        return self._gathering.load(now, replicas, starting, gateways)

    def _variant(self) -> tuple[Variant, bool]:
        """What a replica can do, and whether that is known."""
        known, (least, most) = self._gathering.known, self._bounds
        steps = known.steps
        return Variant(
            self._model, steps or _NOTHING, known.kv_tokens or _UNBOUNDED, self._seats,
            known.batched_tokens or _UNBOUNDED, known.price or 0, least, most,
            _START_S if known.start_s is None else known.start_s), steps is not None

    def _tell(self, decision: Decision, before: tuple[int, ...], load: Load | None) -> None:
        self._meter.decided(self._model, decision.reason, decision.total)
        if decision.replicas != before:
            log.info("model %s: %d -> %d replicas: %s (%s)", self._model, sum(before), decision.total,
                     REASONS[decision.reason], _in_words(decision, load), extra={"model": self._model})
        elif decision.reason != self._last and decision.reason in ("stale", "cost_cap"):
            log.warning("model %s: %d replicas stay: %s (%s)", self._model, decision.total, REASONS[decision.reason],
                        _in_words(decision, load), extra={"model": self._model})
        self._last = decision.reason


def _in_words(decision: Decision, load: Load | None) -> str:
    if load is None:
        return "no gateway tells anything"
    needed = "" if decision.needed is None else f"{decision.needed:.2f} replicas' worth of work; "
    return (f"{needed}{load.running} running, {load.waiting} waiting at replicas, {load.queued} in gateways; "
            f"{sum(load.ready)} ready, {sum(load.starting)} starting; told {load.at_s:.0f}")


def _logging(form: str, file: str) -> None:
    """Write decisions to a file or to the controller's standard error: once, for Ray configures none for us."""
    if log.handlers:
        return
    handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logs.Json("scaling") if form == "json" else logs.Human("scaling"))
    handler.addFilter(logs.Limit(LogSpec().burst))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
