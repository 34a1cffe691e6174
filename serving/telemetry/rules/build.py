"""A fleet's rule file for Prometheus: error budgets as recording rules, and the alerts.

Burn rates over two windows each, as in Google's SRE workbook, chapter 5: the long window says that it matters, the
short one that it still goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Template
from typing import Any, NamedTuple

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
              {"name": "flotilla-slo-left", "interval": "5m", "rules": [_left(_MODELS), _left(_TENANTS)]},
              {"name": "flotilla-slo-tenants", "interval": "1m",
               "rules": [*_tenants_budgets(slos), *_tenants_misses()]}]
    by_group: dict[str, list[_Rule]] = {}
    for alert in alerts():
        by_group.setdefault(alert.group, []).append(_rule(alert, spool_bytes, runbook))
    return {"groups": groups + [{"name": f"flotilla-{name}", "rules": rules} for name, rules in by_group.items()]}


class _Kind(NamedTuple):
    """Promises of one kind: what their series are called, and which labels one of them has."""

    recorded: str
    counted: str
    by: str


_MODELS = _Kind("slo", "slo", "model, promise")  # to all
_SEEN_BY_TENANT = _Kind("tenant_slo", "slo", "model, tenant, promise")  # the same, as each tenant gets it
_TENANTS = _Kind("tenant_promise", "tenant_promise", "model, tenant, promise")  # to single tenants


def _budgets(slos: Mapping[str, Slo]) -> Iterator[_Rule]:
    """What share may be missed, as series, so that one alert serves all models."""
    for model, slo in slos.items():
        yield from _budget(_MODELS, slo, model=model)


def _tenants_budgets(slos: Mapping[str, Slo]) -> Iterator[_Rule]:
    for model, slo in slos.items():
        for tenant, own in slo.own().items():
            yield from _budget(_TENANTS, own, model=model, tenant=tenant)


def _budget(kind: _Kind, slo: Slo, **labels: str) -> Iterator[_Rule]:
    for promise in PROMISES:
        yield {"record": f"flotilla:{kind.recorded}_budget:ratio",
               "expr": f"vector({round(1 - slo.objective(promise), 9):g})", "labels": labels | {"promise": promise}}


def _misses() -> Iterator[_Rule]:
    for window in WINDOWS:
        yield _share(_MODELS, window)
    for window in TENANT_WINDOWS:
        yield _share(_SEEN_BY_TENANT, window)
    yield _eligible(_MODELS)
    yield _eligible(_SEEN_BY_TENANT)


def _tenants_misses() -> Iterator[_Rule]:
    for window in WINDOWS:
        yield _share(_TENANTS, window)
    yield _eligible(_TENANTS)


def _share(kind: _Kind, window: str) -> _Rule:
    missed, seen = (f"sum by ({kind.by}) (rate(flotilla_{kind.counted}_{what}_total[{window}]))"
                    for what in ("missed", "eligible"))
    return {"record": f"flotilla:{kind.recorded}_missed:ratio_rate{window}", "expr": f"{missed} / {seen}"}


def _eligible(kind: _Kind) -> _Rule:
    return {"record": f"flotilla:{kind.recorded}_eligible:increase1h",
            "expr": f"sum by ({kind.by}) (increase(flotilla_{kind.counted}_eligible_total[1h]))"}


def _left(kind: _Kind) -> _Rule:
    """1: nothing of the budget is used. 0: all of it. Below 0: more was missed than promised."""
    missed, seen = (f"sum by ({kind.by}) (increase(flotilla_{kind.counted}_{what}_total[{PERIOD}]))"
                    for what in ("missed", "eligible"))
    budget = f"flotilla:{kind.recorded}_budget:ratio"
    return {"record": f"flotilla:{kind.recorded}_budget_left:ratio",
            "expr": f"1 - {missed} / on ({kind.by}) ({seen} * on ({kind.by}) {budget})"}


def _rule(alert: Alert, spool_bytes: int, runbook: str) -> _Rule:
    rule: _Rule = {"alert": alert.alert, "expr": Template(alert.expr).safe_substitute(spool_limit=spool_bytes)}
    if alert.wait != "0m":
        rule["for"] = alert.wait
    return rule | {
        "labels": {"severity": alert.severity, "service": "flotilla"},
        "annotations": {"summary": alert.summary, "description": alert.impact + " First: " + alert.steps[0],
                        "runbook_url": f"{runbook}#{alert.alert.lower()}"},
    }
