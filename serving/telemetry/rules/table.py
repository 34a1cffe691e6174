"""The alerts as data: `alerts.yaml`, read strictly."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

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


def _burn(long: str, short: str, rate: float, by: str = "model, promise", kind: str = "slo", of: str = "") -> str:
    """Both windows burn the budget `rate` times as fast as it may be burned.

    A budget of a tenth cannot be burned 14 times as fast, so what must be missed at most counts from three quarters on.
    """
    limit = f"clamp_max({rate:g} * flotilla:slo_budget:ratio, 0.75)"
    group = "group_left " if kind != "slo" else ""
    parts = [f"flotilla:{kind}_missed:ratio_rate{window}{of} > on (model, promise) {group}{limit}"
             for window in (long, short)]
    return f"({parts[0]} and on ({by}) {parts[1]})"


_GOODPUT = '{promise="goodput"}'
_ENOUGH = "flotilla:slo_eligible:increase1h >= 20"
BUDGET = (
    Alert.model_validate({
        "alert": "FlotillaErrorBudgetBurnsFast", "group": "slo", "severity": "page", "for": "2m",
        "expr": f"({_burn('1h', '5m', 14.4)} or {_burn('6h', '30m', 6)}) and on (model, promise) {_ENOUGH}",
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
        "expr": f"({_burn('1d', '2h', 3)} or {_burn('3d', '6h', 1)}) and on (model, promise) {_ENOUGH}",
        "summary": "{{ $labels.model }} misses its {{ $labels.promise }} promise more often than it may",
        "impact": "The error budget of 30 days will not last for 30 days.",
        "steps": [
            "`flotilla:slo_budget_left:ratio` shows how much is left and since when it falls.",
            "Add capacity, or say what is true: change `slo` in the fleet file.",
        ]}),
    Alert.model_validate({
        "alert": "FlotillaTenantGoodputLow", "group": "slo", "severity": "ticket", "for": "15m",
        "expr": f"{_burn('1d', '2h', 3, 'model, promise, tenant', 'tenant_slo', _GOODPUT)} "
                "and on (model, promise, tenant) flotilla:tenant_slo_eligible:increase1h >= 20",
        "summary": "{{ $labels.tenant }} gets less than {{ $labels.model }} promises",
        "impact": "One team is served worse than the model's objective, though the fleet as a whole may keep it.",
        "steps": [
            "Compare with the other tenants of the model: if all are low, see FlotillaErrorBudgetBurnsSlowly.",
            "If it is this one alone: long prompts, a burst above its share (`weight` in the fleet file), or a quota.",
        ]}),
)
