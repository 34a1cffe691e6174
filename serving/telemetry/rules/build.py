"""A fleet's rule file for Prometheus: error budgets as recording rules, and the alerts.

Burn rates over two windows each, as in Google's SRE workbook, chapter 5: the long window says that it matters, the
short one that it still goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Template
from typing import Any

from serving.fleet.slos import PROMISES, Slo
from serving.telemetry.rules.table import Alert, alerts

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
TENANT_WINDOWS = ("2h", "1d")
PERIOD = "30d"  # over which an error budget is counted
RUNBOOK = "deployments/docs/runbooks.md"
_Rule = dict[str, Any]


def rule_file(slos: Mapping[str, Slo], spool_bytes: int, runbook: str = RUNBOOK) -> dict[str, Any]:
    """The content of the rule file. `slos`: by model. `spool_bytes`: of one process. `runbook`: where its pages are."""
    groups = [{"name": "flotilla-slo-budgets", "interval": "1m", "rules": [*_budgets(slos)]},
              {"name": "flotilla-slo-misses", "interval": "1m", "rules": [*_misses()]},
              {"name": "flotilla-slo-left", "interval": "5m", "rules": [_left()]}]
    by_group: dict[str, list[_Rule]] = {}
    for alert in alerts():
        by_group.setdefault(alert.group, []).append(_rule(alert, spool_bytes, runbook))
    return {"groups": groups + [{"name": f"flotilla-{name}", "rules": rules} for name, rules in by_group.items()]}


def _budgets(slos: Mapping[str, Slo]) -> Iterable[_Rule]:
    """What share may be missed, as series, so that one alert serves all models."""
    for model, slo in slos.items():
        for promise in PROMISES:
            yield {"record": "flotilla:slo_budget:ratio", "expr": f"vector({round(1 - slo.objective(promise), 9):g})",
                   "labels": {"model": model, "promise": promise}}


def _misses() -> Iterable[_Rule]:
    for window in WINDOWS:
        yield {"record": f"flotilla:slo_missed:ratio_rate{window}", "expr": _share("model, promise", window)}
    for window in TENANT_WINDOWS:
        yield {"record": f"flotilla:tenant_slo_missed:ratio_rate{window}",
               "expr": _share("model, tenant, promise", window)}
    yield {"record": "flotilla:slo_eligible:increase1h",
           "expr": "sum by (model, promise) (increase(flotilla_slo_eligible_total[1h]))"}
    yield {"record": "flotilla:tenant_slo_eligible:increase1h",
           "expr": "sum by (model, tenant, promise) (increase(flotilla_slo_eligible_total[1h]))"}


def _share(by: str, window: str) -> str:
    return (f"sum by ({by}) (rate(flotilla_slo_missed_total[{window}])) / "
            f"sum by ({by}) (rate(flotilla_slo_eligible_total[{window}]))")


def _left() -> _Rule:
    """1: nothing of the budget is used. 0: all of it. Below 0: more was missed than promised."""
    missed = f"sum by (model, promise) (increase(flotilla_slo_missed_total[{PERIOD}]))"
    seen = f"sum by (model, promise) (increase(flotilla_slo_eligible_total[{PERIOD}]))"
    return {"record": "flotilla:slo_budget_left:ratio",
            "expr": f"1 - {missed} / on (model, promise) ({seen} * on (model, promise) flotilla:slo_budget:ratio)"}


def _rule(alert: Alert, spool_bytes: int, runbook: str) -> _Rule:
    rule: _Rule = {"alert": alert.alert, "expr": Template(alert.expr).safe_substitute(spool_limit=spool_bytes)}
    if alert.wait != "0m":
        rule["for"] = alert.wait
    return rule | {
        "labels": {"severity": alert.severity, "service": "flotilla"},
        "annotations": {"summary": alert.summary, "description": alert.impact + " First: " + alert.steps[0],
                        "runbook_url": f"{runbook}#{alert.alert.lower()}"},
    }
