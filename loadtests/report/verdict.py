"""Whether a run proves something, and whether it is good: pass, fail or invalid, with the reasons. Pure.

What makes a run invalid is decided in `loadtests.validity`, for the command that made the run and for its report alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.report.model import ModelReport, RunFacts, Verdict
from loadtests.validity import broken_rules


def judge(run: RunFacts, models: Mapping[str, ModelReport]) -> Verdict:
    """Invalid beats fail; all reasons are given, those of invalidity first."""
    invalid, failed = [*broken_rules(run), *_unseen(run, models)], _failed(run, models)
    if invalid:
        return Verdict(result="invalid", reasons=[*invalid, *failed], certain=True)
    answers = [model.slo_attainment.answer for model in models.values() if model.slo is not None]
    if failed:
        errors = run.stopped_by is not None or any(model.errors for model in models.values())
        return Verdict(result="fail", reasons=failed, certain=errors or "missed" in answers)
    return Verdict(result="pass", reasons=[_praise(models)], certain="undecided" not in answers)


def _unseen(run: RunFacts, models: Mapping[str, ModelReport]) -> list[str]:
    """Models that were to be loaded and were not; a run that its stop condition ended may not have come to them."""
    if run.stopped_by is not None:
        return []
    return [f"{name} got no request in the measured window" for name, model in models.items() if not model.requests]


def _failed(run: RunFacts, models: Mapping[str, ModelReport]) -> list[str]:
    reasons = [] if run.stopped_by is None else [f"stopped early: {run.stopped_by}"]
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
