"""Budgets as metrics: whose, how much, how much of it is spent, and until when."""

from __future__ import annotations

from pathlib import Path

from serving.budgetmetrics import Budgets, money, samples
from serving.fleet.limits import LimitsSpec, Period
from serving.fleet.specs import TenantSpec
from serving.ledger import tenants
from serving.ledger.store import Ledger
from serving.ledgermetrics import LedgerSamples
from serving.telemetry.metrics import BY_NAME

DAY = 86400.0
SHOP = TenantSpec.model_validate({
    "limits": {"requests_per_minute": 5, "budget_per_day": {"soft_usd": 4, "hard_usd": 5}},
    "model_limits": {"qwen": {"budget_per_month": {"soft_usd": 40}}}})
MODELS = {"qwen": LimitsSpec.model_validate({"budget_per_day": {"hard_usd": 9}}), "llama": LimitsSpec()}
SPENT: dict[Period, dict[tuple[str, str], int]] = {
    "day": {("shop", "qwen"): 10**9, ("shop", "llama"): 2 * 10**9, ("search", "qwen"): 4 * 10**9},
    "month": {("shop", "qwen"): 6 * 10**9, ("shop", "llama"): 70 * 10**9}}


def values(tenant_specs: dict[str, TenantSpec], now: float = 40 * DAY) -> dict[tuple[str, ...], float]:
    found = list(samples(money(tenant_specs, MODELS), SPENT.__getitem__, now))
    assert all(len(s.labels) == len(BY_NAME[s.name].labels) for s in found)
    return {(s.name.removeprefix("flotilla_budget_"), *s.labels): s.value for s in found}


def test_each_budget_has_its_marks_what_is_spent_of_it_and_its_end() -> None:
    assert values({"shop": SHOP, "search": TenantSpec()}) == {
        ("usd", "", "shop", "day", "hard"): 5, ("usd", "", "shop", "day", "soft"): 4,
        ("spent_usd", "", "shop", "day"): 3, ("end_timestamp_seconds", "", "shop", "day"): 41 * DAY,
        ("usd", "qwen", "shop", "month", "soft"): 40, ("spent_usd", "qwen", "shop", "month"): 6,
        ("end_timestamp_seconds", "qwen", "shop", "month"): (31 + 28) * DAY,
        ("usd", "qwen", "", "day", "hard"): 9, ("spent_usd", "qwen", "", "day"): 5,
        ("end_timestamp_seconds", "qwen", "", "day"): 41 * DAY}


def test_a_scrape_has_the_budgets_that_the_ledger_knows_now(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    tenants.put(ledger, "shop", SHOP, 1.0, "test")
    made = LedgerSamples(ledger, budgets=Budgets(ledger, MODELS, lambda: 20.0))
    made()
    found = made._budgets.fresh(10)  # what the next scrape will see
    assert ("flotilla_budget_spent_usd", ("", "shop", "day"), 0.0) in {(s.name, s.labels, s.value) for s in found}
    assert {s.name for s in made()} >= {s.name for s in found}
