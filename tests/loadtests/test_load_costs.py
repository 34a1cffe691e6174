from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_samples import failed, make_record

from loadtests.context import Comparator, ModelLedger
from loadtests.report import costs, figures

MINI = Comparator(
    name="mini",
    role="cheapest_proprietary",
    input_usd_per_mtok=2.0,
    cached_input_usd_per_mtok=0.5,
    output_usd_per_mtok=10.0,
)
#: 20 prompt tokens, 5 of them cached, 11 completion tokens, usage.cost 0.001 each; and one that failed.
RECORDS = [make_record(), make_record(), failed()]
LEDGER = ModelLedger.model_validate(
    {
        "requests": 3,
        "nanousd": {"direct": 2_000_000, "waste": 100_000, "idle": 1_500_000, "overhead": 400_000},
    }
)


def test_traffic_counts_tokens_of_successes_only():
    traffic = costs.traffic(RECORDS)
    assert (traffic.requests, traffic.errors, traffic.succeeded) == (3, 1, 2)
    assert (traffic.input_tokens, traffic.cached_input_tokens, traffic.output_tokens) == (40, 10, 22)


def test_with_a_ledger_all_buckets_are_shared_by_the_successes():
    cost = costs.model_cost(RECORDS, LEDGER)
    assert cost.cost_basis == "fully_loaded"
    assert cost.cost_usd == pytest.approx(0.004)
    assert cost.cost_per_request_usd == pytest.approx(0.002)
    assert cost.cost_per_mtok_usd == pytest.approx(0.004 / 62 * 1e6)
    assert cost.charged_cost_per_request_usd == pytest.approx(0.001)


def test_without_a_ledger_it_is_the_mean_of_the_responses_cost():
    cost = costs.model_cost([*RECORDS, make_record(cost_usd=None)], None)
    assert cost.cost_basis == "charged"
    assert cost.cost_per_request_usd == cost.charged_cost_per_request_usd == pytest.approx(0.001)
    assert cost.cost_per_mtok_usd == pytest.approx(0.002 / 62 * 1e6)
    assert cost.fully_loaded_cost_per_request_usd is None


def test_unknown_cost_is_unknown_not_zero():
    cost = costs.model_cost([make_record(cost_usd=None)], None)
    assert cost.cost_basis is None and cost.cost_usd is None and cost.cost_per_request_usd is None


def test_free_is_zero_not_unknown():
    assert costs.model_cost([make_record(cost_usd=0.0)], None).cost_per_request_usd == 0.0


def test_api_prices_by_hand():
    # 30 fresh · 2 + 10 cached · 0.5 + 22 out · 10 = 285 per million.
    assert costs.api_cost_usd(MINI, costs.traffic(RECORDS)) == pytest.approx(285e-6)
    uncached = MINI.model_copy(update={"cached_input_usd_per_mtok": None})
    assert costs.api_cost_usd(uncached, costs.traffic(RECORDS)) == pytest.approx(300e-6)


def loaded(usd: float) -> costs.Cost:
    """A fully loaded cost of so many USD."""
    nanousd = {"direct": round(usd * 1e9)}
    return costs.model_cost(RECORDS, ModelLedger.model_validate({"requests": 3, "nanousd": nanousd}))


def test_only_a_fully_loaded_cost_is_compared_with_a_price():
    assert costs.saving(loaded(0.5), 2.0) == pytest.approx(0.75)
    assert costs.saving(costs.model_cost(RECORDS, None), 2.0) is None
    assert costs.saving(loaded(0.5), 0.0) is None


def test_comparators_know_the_saving():
    (item,) = costs.comparator_costs([MINI], costs.traffic(RECORDS), loaded(28.5e-6))
    assert item.saving == pytest.approx(0.9)
    assert item.cost_per_request_usd == pytest.approx(142.5e-6)
    assert costs.comparator_costs([MINI], costs.traffic([failed()]), loaded(1.0)) == []


def test_the_mix_takes_the_cheapest_of_a_role_and_only_roles_that_all_have():
    whole = costs.traffic(RECORDS)
    dearer = MINI.model_copy(update={"name": "dear", "output_usd_per_mtok": 100.0})
    frontier = MINI.model_copy(update={"role": "frontier"})
    a = costs.comparator_costs([MINI, dearer, frontier], whole, loaded(1.0))
    b = costs.comparator_costs([MINI], whole, loaded(1.0))
    roles = costs.role_costs({"a": a, "b": b}, loaded(57e-6))
    assert set(roles) == {"cheapest_proprietary"}
    assert roles["cheapest_proprietary"].cost_usd == pytest.approx(570e-6)
    assert roles["cheapest_proprietary"].saving == pytest.approx(0.9)


def test_the_mix_has_no_total_on_mixed_bases():
    known = [costs.model_cost(RECORDS, LEDGER), costs.model_cost(RECORDS, None)]
    mixed = costs.mix_cost(known, costs.traffic(RECORDS * 2), RECORDS * 2)
    assert mixed.cost_basis is None and mixed.cost_usd is None
    assert mixed.charged_cost_per_request_usd == pytest.approx(0.001)
    same = costs.mix_cost([known[0]] * 2, costs.traffic(RECORDS * 2), RECORDS * 2)
    assert same.cost_usd == pytest.approx(0.008) and same.cost_per_request_usd == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "$0"),
        (1234.5, "$1,234.50"),
        (0.5, "$0.500"),
        (0.0000123456, "$0.0000123"),
        (0.000999999, "$0.00100"),
        (-0.02, "−$0.0200"),
        (4e-10, "<$0.000000001"),
    ],
)
def test_money(value, text):
    assert figures.usd(value) == text


@given(st.floats(1e-9, 1e6))
def test_money_is_never_shown_as_something_else(value):
    shown = float(figures.usd(value).strip("$").replace(",", ""))
    assert shown == pytest.approx(value, rel=0.006)


def test_savings_in_words():
    assert figures.saving(0.9) == "90% less"
    assert figures.saving(0.9968) == "99.68% less"
    assert figures.saving(0.999999) == "99.99% less"
    assert figures.saving(-0.5) == "1.5× the price"
    assert figures.saving(None) == "–"
