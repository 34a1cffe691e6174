"""Promises against counters: shares kept, and what is left of the error budgets."""

from __future__ import annotations

import pytest

from serving.fleet.slos import Slo, TenantSlo
from serving.telemetry.promises import Kept, Promised, promised
from serving.telemetry.view import Scrape

SLO = Slo(ttft_ms=500, tpot_ms=50, availability=0.99, tenants={"shop": TenantSlo(availability=0.9, ttft_ms=200)})


def counted(*lines: str) -> Scrape:
    return Scrape.parse(0.0, "\n".join((*lines, "")))


def of(found: tuple[Promised, ...], tenant: str, promise: str) -> Kept:
    (kept,) = [k for p in found if p.tenant == tenant for k in p.promises if k.promise == promise]
    return kept


def test_counts_of_all_tenants_and_places_are_everyones() -> None:
    found = promised({"qwen": SLO}, counted(
        *(f'flotilla_slo_eligible_total{{model="qwen",tenant="{t}",promise="availability",instance="{i}"}} 100'
          for t in ("shop", "other") for i in "ab"),
        'flotilla_slo_missed_total{model="qwen",tenant="shop",promise="availability",instance="b"} 3'))
    kept = of(found, "", "availability")
    assert (kept.eligible, kept.missed, kept.share) == (400, 3, 0.9925)
    assert kept.left == pytest.approx(0.25), "three of the four that may be missed"
    assert of(found, "shop", "availability").left is None, "what everyone was promised is not what the tenant was"


def test_a_tenants_own_promise_has_its_own_threshold_objective_and_count() -> None:
    found = promised({"qwen": SLO}, counted(
        'flotilla_tenant_promise_eligible_total{model="qwen",tenant="shop",promise="availability"} 100',
        'flotilla_tenant_promise_missed_total{model="qwen",tenant="shop",promise="availability"} 15',
        'flotilla_tenant_promise_eligible_total{model="llama",tenant="shop",promise="availability"} 1'))
    kept = of(found, "shop", "availability")
    assert kept.left == pytest.approx(-0.5)
    assert of(found, "shop", "ttft").at_most_s == 0.2 and of(found, "", "ttft").at_most_s == 0.5
    assert (kept.at_most_s, of(found, "shop", "tpot").objective) == (None, 0.95), "what is left out is as for all"


def test_nothing_counted_is_nothing_said() -> None:
    (everyone, shop) = promised({"qwen": SLO}, counted())
    assert all(k.share is None and k.left is None for k in (*everyone.promises, *shop.promises))
