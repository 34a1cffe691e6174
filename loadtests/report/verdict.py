"""Whether a run proves something, and whether it is good: pass, fail or invalid, with the reasons. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.report.model import ModelReport, RunFacts, Verdict


@dataclass(frozen=True)
class Limits:
    """Beyond these the load generator itself spoilt the measurement."""

    lateness_p99_ms: float = 100.0
    loop_lag_p99_ms: float = 100.0
    achieved_share: float = 0.95


def judge(run: RunFacts, models: Mapping[str, ModelReport], limits: Limits = Limits()) -> Verdict:
    """Invalid beats fail; all reasons are given, those of invalidity first."""
    invalid, failed = _invalid(run, models, limits), _failed(models)
    if invalid:
        return Verdict(result="invalid", reasons=[*invalid, *failed], certain=True)
    answers = [model.slo_attainment.answer for model in models.values() if model.slo is not None]
    if failed:
        errors = any(model.errors for model in models.values())
        return Verdict(result="fail", reasons=failed, certain=errors or "missed" in answers)
    return Verdict(result="pass", reasons=[_praise(models)], certain="undecided" not in answers)


def _invalid(run: RunFacts, models: Mapping[str, ModelReport], limits: Limits) -> list[str]:
    reasons = []
    if run.interrupted:
        reasons.append("the run was interrupted before its end")
    checks = (
        ("dispatch lateness", run.dispatch_lateness_ms, limits.lateness_p99_ms),
        ("event-loop lag", run.loop_lag_ms, limits.loop_lag_p99_ms),
    )
    for name, values, limit in checks:
        p99 = values["p99"]
        if p99 is not None and p99 > limit:
            reasons.append(
                f"{name} p99 {p99:.0f} ms is above {limit:.0f} ms: the load generator was too slow"
            )
    share = run.arrivals.achieved_share
    if share < limits.achieved_share:
        wanted, got = run.arrivals.requested_rate_per_s, run.arrivals.achieved_rate_per_s
        reasons.append(
            f"achieved {got:.2f} of {wanted:.2f} arrivals/s ({share:.0%}), below {limits.achieved_share:.0%}"
        )
    for name, model in models.items():
        if not model.requests:
            reasons.append(f"{name} got no request in the measured window")
    return reasons


def _failed(models: Mapping[str, ModelReport]) -> list[str]:
    reasons = []
    for name, model in models.items():
        if model.errors:
            reasons.append(f"{name}: {model.errors} of {model.requests} requests failed")
        goal = model.slo_attainment.goal
        for item in model.slo_attainment.objectives:
            if item.share.value < goal:
                reasons.append(
                    f"{name}: {item.term} ≤ {item.limit_ms:g} ms met by {item.share.value:.1%}, goal {goal:.0%}"
                )
    return reasons


def _praise(models: Mapping[str, ModelReport]) -> str:
    requests = sum(model.requests for model in models.values())
    bound = [model for model in models.values() if model.slo is not None]
    if not bound:
        return f"{requests} requests without an error; no objectives were set"
    goal = max(model.slo_attainment.goal for model in bound)
    return f"{requests} requests without an error; every objective met by at least {goal:.0%} of them"
