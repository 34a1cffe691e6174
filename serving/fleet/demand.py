"""How much a request may use: an estimate before it runs, made better by what requests turn out to use.

The gateway has no tokenizer, and what a request costs depends on who runs beside it. So a prompt's tokens are guessed
from its bytes, and its cost is bounded by the time it would take alone at the pace that the model promises (`slo`),
with the most idle time that it may be charged with on top. Both guesses follow what was seen: a ratio rises at once
with a worse request and sinks slowly, so that the estimate stays above nearly all of them. May not happen in here:
counters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.fleet.accelerators import price_range
from serving.fleet.catalogue import Fleet
from serving.fleet.money import NS_PER_HOUR
from serving.fleet.records import Tokens

MOST_UNASKED = 1024  # completion tokens that must be there for a request that does not say how many it wants
_HEADROOM = 1.25  # above the worst seen
_FORGET = 0.98  # of a ratio, with each request
_FORGET_FIRST, _FIRST = 0.8, 25  # and with each of the first ones, which replace a bound by what is true
_TEMPLATE = 16  # tokens that a chat template adds, at least
_FIRST_PER_BYTE = 0.5  # tokens; English has about 0.25
_SMALLEST_RATIO = 0.02


@dataclass(frozen=True)
class Ask:
    """What the request says. `body_bytes`: of what becomes its prompt; `completion`: the most tokens it asks for, None
    where it does not say; `answers`: how many it asks for, each of so many tokens; `prompts`: how many it brings;
    `generates`: whether it makes tokens at all; `works`: whether it runs the model at all."""

    body_bytes: int
    completion: int | None = None
    answers: int = 1
    prompts: int = 1
    generates: bool = True
    works: bool = True


@dataclass(frozen=True)
class Demand:
    """The most that the request is taken to use. `least_completion`: what must be there for it to begin."""

    prompt: int
    completion: int
    least_completion: int
    answers: int


@dataclass(frozen=True)
class ModelFacts:
    """What estimates rest on. `nanousd_per_hour`: of a replica; `ttft_s`, `tpot_s`: what the model promises."""

    max_model_len: int
    ttft_s: float
    tpot_s: float
    nanousd_per_hour: int
    max_loading: float


class Estimator:
    """Estimates for one model."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        self._per_byte, self._of_bound = _FIRST_PER_BYTE, 1.0
        self._seen = 0

    def demand(self, ask: Ask, max_output: int | None) -> Demand:
        """What a request may use, where `max_output` completion tokens are the most for one answer."""
        length = self._facts.max_model_len
        if not ask.works:
            return Demand(0, 0, 0, ask.answers)
        prompt = min(length * ask.prompts, math.ceil(ask.body_bytes * self._per_byte) + _TEMPLATE)
        if not ask.generates:
            return Demand(prompt, 0, 0, ask.answers)
        room = max(1, length - prompt // ask.prompts)
        each = min(room, max_output or room, room if ask.completion is None else max(1, ask.completion))
        least = min(each, MOST_UNASKED) if ask.completion is None else each
        return Demand(prompt, each * ask.answers, least * ask.answers, ask.answers)

    def nanousd(self, prompt: int, completion: int, answers: int = 1) -> int:
        """The most that so many tokens are taken to cost. A request without tokens costs nothing."""
        if not prompt and not completion:
            return 0
        return max(1, math.ceil(self._bound(prompt, completion, answers) * self._of_bound))

    def bound(self, prompt: int, completion: int, answers: int = 1) -> int:
        """The most that they cost at the pace that the model promises (or kept, where that was slower), with the most
        idle time on top."""
        if not prompt and not completion:
            return 0
        return math.ceil(self._bound(prompt, completion, answers) * max(1.0, self._of_bound))

    def seen(self, body_bytes: int, answers: int, tokens: Tokens, nanousd: int | None) -> None:
        """A request has turned out to use so much."""
        if body_bytes and tokens.prompt:
            ratio = max(0, tokens.prompt - _TEMPLATE) / body_bytes * _HEADROOM
            self._per_byte = max(_SMALLEST_RATIO, ratio, self._per_byte * _FORGET)
        if nanousd is not None and (tokens.prompt or tokens.completion):
            ratio = nanousd / self._bound(tokens.prompt, tokens.completion, answers) * _HEADROOM
            self._seen += 1
            self._of_bound = max(1e-6, ratio, self._of_bound * (_FORGET_FIRST if self._seen <= _FIRST else _FORGET))

    def _bound(self, prompt: int, completion: int, answers: int) -> float:
        facts = self._facts
        # answers of one request run side by side; a prompt longer than the model's takes as many first tokens as it has
        prompts = max(1, math.ceil(prompt / facts.max_model_len))
        seconds = facts.ttft_s * prompts + facts.tpot_s * completion
        return seconds * 1e9 * facts.nanousd_per_hour / NS_PER_HOUR * (1 + facts.max_loading)


def estimators(fleet: Fleet, now: float) -> dict[str, Estimator]:
    """One for each model of a fleet. `now`: Unix seconds, for the price; where nodes decide it, the dearest counts."""
    return {name: Estimator(_facts(fleet, name, now)) for name in fleet.models}


def _facts(fleet: Fleet, name: str, now: float) -> ModelFacts:
    spec = fleet.models[name]
    profile = fleet.accelerators[spec.accelerator]
    if profile.needs_labels:
        price = price_range(profile, fleet.accelerator_book)[1] * spec.devices
    else:
        price = fleet.price_nanousd_per_hour(name, now)
    loading = fleet.costs.max_loading if fleet.costs.idle == "pro_rata" else 0.0
    return ModelFacts(spec.engine.max_model_len, spec.slo.ttft_ms / 1e3, spec.slo.tpot_ms / 1e3, price, loading)
