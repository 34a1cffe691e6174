"""The alerts as data: `alerts.yaml`, read strictly."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter

from serving.fleet.config import Strict

Severity = Literal["page", "ticket"]
Text = Annotated[str, Field(min_length=1)]


class Alert(Strict):
    """One alert. `expr`: PromQL, with placeholders as `string.Template` has them. `steps`: what to do first."""

    alert: Annotated[str, Field(pattern="^Flotilla[A-Z][A-Za-z]+$")]
    group: Literal["slo", "capacity", "cost", "correctness"]
    severity: Severity
    wait: Annotated[str, Field(alias="for", pattern=r"^\d+[smhd]$")]
    expr: Text
    summary: Text
    impact: Text
    steps: Annotated[list[Text], Field(min_length=1)]


@cache
def alerts() -> tuple[Alert, ...]:
    """Error budgets first, then the table."""
    import yaml

    read = yaml.safe_load((files("serving.telemetry.rules") / "alerts.yaml").read_text(encoding="utf-8"))
    return (*BUDGET, *TypeAdapter(list[Alert]).validate_python(read))


class _Promises(NamedTuple):
    """Whose misses are held against which budget: what the recorded series are called, and the labels of one."""

    missed: str
    each: str
    budget: str
    per: str


_MODEL, _EACH = "model, promise", "model, tenant, promise"
_TO_ALL = _Promises("slo", _MODEL, "slo", _MODEL)
_TO_ALL_BY_TENANT = _Promises("tenant_slo", _EACH, "slo", _MODEL)
_TO_ONE = _Promises("tenant_promise", _EACH, "tenant_promise", _EACH)


def _burn(of: _Promises, long: str, short: str, rate: float, only: str = "") -> str:
    """Both windows burn the budget `rate` times as fast as it may be burned.

    A budget of a tenth cannot be burned 14 times as fast, so what must be missed at most counts from three quarters on.
    """
    limit = f"clamp_max({rate:g} * flotilla:{of.budget}_budget:ratio, 0.75)"
    group = "group_left " if of.each != of.per else ""
    parts = [f"flotilla:{of.missed}_missed:ratio_rate{window}{only} > on ({of.per}) {group}{limit}"
             for window in (long, short)]
    return f"({parts[0]} and on ({of.each}) {parts[1]})"


def _fast(of: _Promises) -> str:
    return f"({_burn(of, '1h', '5m', 14.4)} or {_burn(of, '6h', '30m', 6)}) and {_enough(of)}"


def _slowly(of: _Promises) -> str:
    return f"({_burn(of, '1d', '2h', 3)} or {_burn(of, '3d', '6h', 1)}) and {_enough(of)}"


def _enough(of: _Promises) -> str:
    return f"on ({of.each}) flotilla:{of.missed}_eligible:increase1h >= 20"


_GOODPUT = '{promise="goodput"}'
BUDGET = (
    Alert.model_validate({
        "alert": "FlotillaErrorBudgetBurnsFast", "group": "slo", "severity": "page", "for": "2m",
        "expr": _fast(_TO_ALL),
        "summary": "{{ $labels.model }} misses its {{ $labels.promise }} promise for {{ $value | humanizePercentage }} "
                   "of requests",
        "impact": "At this pace the error budget of 30 days is gone within days. Callers notice now.",
        "steps": [
            "`promise` says what is missed: availability (errors), ttft (queues, cold starts, long prompts), tpot (too "
            "many requests at once), goodput (any of them).",
            "`sum by (code) (rate(flotilla_requests_total{model=\"…\"}[5m]))` and the queue, flotilla_requests_queued, "
            "tell overload from a fault; `flotilla status` names replicas that are down.",
            "If a change went out in this hour, take it back first and look for the cause after.",
        ]}),
    Alert.model_validate({
        "alert": "FlotillaErrorBudgetBurnsSlowly", "group": "slo", "severity": "ticket", "for": "15m",
        "expr": _slowly(_TO_ALL),
        "summary": "{{ $labels.model }} misses its {{ $labels.promise }} promise more often than it may",
        "impact": "The error budget of 30 days will not last for 30 days.",
        "steps": [
            "`flotilla:slo_budget_left:ratio` shows how much is left and since when it falls.",
            "Add capacity, or say what is true: change `slo` in the fleet file.",
        ]}),
    Alert.model_validate({
        "alert": "FlotillaTenantGoodputLow", "group": "slo", "severity": "ticket", "for": "15m",
        "expr": f"{_burn(_TO_ALL_BY_TENANT, '1d', '2h', 3, _GOODPUT)} and {_enough(_TO_ALL_BY_TENANT)}",
        "summary": "{{ $labels.tenant }} gets less than {{ $labels.model }} promises",
        "impact": "One team is served worse than the model's objective, though the fleet as a whole may keep it.",
        "steps": [
            "Compare with the other tenants of the model: if all are low, see FlotillaErrorBudgetBurnsSlowly.",
            "If it is this one alone: long prompts, a burst above its share (`weight` in the fleet file), or a quota.",
        ]}),
    Alert.model_validate({
        "alert": "FlotillaTenantBudgetBurnsFast", "group": "slo", "severity": "page", "for": "2m",
        "expr": _fast(_TO_ONE),
        "summary": "{{ $labels.model }} misses its own {{ $labels.promise }} promise to {{ $labels.tenant }} for "
                   "{{ $value | humanizePercentage }} of its requests",
        "impact": "At this pace what was promised to this tenant for 30 days is broken within days; other tenants may "
                  "be served as promised.",
        "steps": [
            "If FlotillaErrorBudgetBurnsFast fires for the model too, go by its runbook: all tenants are concerned.",
            "If it is this one alone: long prompts, a burst above its share (`weight` in the fleet file), or others' "
            "bursts before it. `flotilla usage` shows who sends what.",
            "A higher `weight` or keys of the class `interactive` put it before others in the queue.",
        ]}),
    Alert.model_validate({
        "alert": "FlotillaTenantBudgetBurnsSlowly", "group": "slo", "severity": "ticket", "for": "15m",
        "expr": _slowly(_TO_ONE),
        "summary": "{{ $labels.model }} misses its own {{ $labels.promise }} promise to {{ $labels.tenant }} more "
                   "often than it may",
        "impact": "The error budget of 30 days of this tenant will not last for 30 days.",
        "steps": [
            "`flotilla:tenant_promise_budget_left:ratio` shows how much is left and since when it falls.",
            "Scaling keeps to what is promised to all: if that is looser, make it tighter, add replicas, or give the "
            "tenant a model of its own.",
            "Or say what is true: change `slo.tenants` of the model in the fleet file.",
        ]}),
)
