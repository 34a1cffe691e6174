"""What a reader must know before believing a figure, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.context import Ledger
from loadtests.report.model import ModelReport, RunFacts
from loadtests.statistics import requests_needed

_ENOUGH_FOR_P99 = requests_needed(0.99)


def notes(models: Mapping[str, ModelReport], run: RunFacts, ledger: Ledger | None) -> list[str]:
    """The notes that apply, the gravest first."""
    return [
        *_random_weights(models),
        *_cut_short(run),
        *_closed_loop(run),
        *_costs(models, ledger),
        *_uncertain(models),
        *_warmup(models, run),
        *_small_samples(models),
    ]


def _random_weights(models: Mapping[str, ModelReport]) -> list[str]:
    names = [name for name, model in models.items() if model.random_weights]
    if not names:
        return []
    return [
        f"Random weights: {', '.join(names)}. The texts are noise, and the figures of such a small model "
        "say nothing about the real model's speed, quality, cost or saving. They show that the system "
        "works and what it adds up."
    ]


def _cut_short(run: RunFacts) -> list[str]:
    if not (run.interrupted or run.lost):
        return []
    lasted = run.ended_unix - run.started_unix
    return [f"Partial results: the run ended after {lasted:.0f} of {run.duration_s:.0f} s; what was seen until then "
            "is counted."]


def _closed_loop(run: RunFacts) -> list[str]:
    if run.loop == "open":
        return []
    who = "Every user waits" if run.loop == "closed" else "Some users wait"
    return [f"Closed loop: {who} for an answer before asking again, so a slow fleet is asked less and looks better "
            "than it would to people who come whatever others are waiting for."]


def _costs(models: Mapping[str, ModelReport], ledger: Ledger | None) -> list[str]:
    found = []
    busy = {name: model for name, model in models.items() if model.whole_run.succeeded}
    unknown = [name for name, model in busy.items() if model.cost_basis is None]
    if unknown:
        found.append(
            f"No cost is known for {', '.join(unknown)}: no ledger, and the responses carried no usage.cost."
        )
    charged = [name for name, model in busy.items() if model.cost_basis == "charged"]
    if charged:
        found.append(
            f"Cost of {', '.join(charged)} is as charged (usage.cost of the responses): overhead, aborted work and "
            "idle time that no one was charged with are missing, so no saving against an API is given."
        )
    if ledger is not None and ledger.residual_nanousd:
        found.append(f"The ledger left {ledger.residual_nanousd} nano-USD of the run without an owner.")
    for name, model in busy.items():
        if model.ledger_requests is not None and model.ledger_requests != model.whole_run.requests:
            found.append(
                f"{name}: the ledger counted {model.ledger_requests} requests in the run's window, the load "
                f"test {model.whole_run.requests}."
            )
    return found


def _uncertain(models: Mapping[str, ModelReport]) -> list[str]:
    found = []
    for name, model in models.items():
        for item in model.slo_attainment.objectives:
            if item.answer == "undecided":
                found.append(
                    f"{name}: {item.term} ≤ {item.limit_ms:g} ms was met by {item.share.value:.1%} of the requests, "
                    f"but with 95% confidence that is from {item.share.low or 0:.1%} to {item.share.high or 1:.1%}; "
                    f"the goal is {model.slo_attainment.goal:.0%}. A longer run can tell."
                )
    return found


def _warmup(models: Mapping[str, ModelReport], run: RunFacts) -> list[str]:
    failed = sum(model.whole_run.errors - model.errors for model in models.values())
    if not failed:
        return []
    return [f"{failed} requests failed in the first {run.warmup_s:g} s (warm-up) and are not in the verdict."]


def _small_samples(models: Mapping[str, ModelReport]) -> list[str]:
    few = [name for name, model in models.items() if 0 < (model.ttft_ms["count"] or 0) < _ENOUGH_FOR_P99]
    if not few:
        return []
    return [
        f"Fewer than {_ENOUGH_FOR_P99} streamed requests: {', '.join(few)}. A p99 of so few has no upper end to its "
        "interval and will move from run to run."
    ]
