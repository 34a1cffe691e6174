"""The live view says what happened between two scrapes, as PromQL would."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serving.fleet.records import RequestRecord, Tokens
from serving.fleet.slos import Slo
from serving.telemetry.meter import PrometheusMeter
from serving.telemetry.view import Scrape, quantile, view

SLOS = {"qwen": Slo(ttft_ms=150, tpot_ms=50), "llama": Slo(ttft_ms=150, tpot_ms=50)}


def stream(ttft_s: float, code: int = 200) -> RequestRecord:
    return RequestRecord("flo-1", "", "demo", "k1", "qwen", "chat_completions", code,
                         "finished" if code == 200 else "failed", 0.0, ttft_s + 0.3, True, ttft_s, Tokens(5, 0, 11))


def ledger(direct: float, idle: float, busy: float, completion: int) -> str:
    return f"""# TYPE flotilla_cost_usd_total counter
flotilla_cost_usd_total{{model="qwen",tenant="demo",bucket="direct"}} {direct}
flotilla_cost_usd_total{{model="qwen",tenant="",bucket="idle"}} {idle}
flotilla_cost_usd_total{{model="",tenant="",bucket="overhead"}} {idle}
# TYPE flotilla_counterfactual_usd_total counter
flotilla_counterfactual_usd_total{{model="qwen",tenant="demo",comparator="api"}} {4 * (direct + idle)}
# TYPE flotilla_tokens_total counter
flotilla_tokens_total{{model="qwen",tenant="demo",kind="completion"}} {completion}
flotilla_tokens_total{{model="qwen",tenant="demo",kind="prompt"}} {9 * completion}
# TYPE flotilla_replica_seconds_total counter
flotilla_replica_seconds_total{{model="qwen",state="busy"}} {busy}
flotilla_replica_seconds_total{{model="qwen",state="idle"}} {2 * busy}
flotilla_replica_seconds_total{{model="qwen",state="cold_start"}} 7
# TYPE flotilla_replicas gauge
flotilla_replicas{{model="qwen"}} 2
# TYPE flotilla_ledger_up gauge
flotilla_ledger_up 1
"""


@pytest.fixture
def two() -> tuple[Scrape, Scrape]:
    """Twelve streams within ten seconds, four of them late, one failed."""
    registry = CollectorRegistry()
    meter = PrometheusMeter(SLOS, registry)
    meter.begin("qwen")
    meter.answered(stream(0.2), 5e-6)
    before = Scrape.parse(100.0, generate_latest(registry).decode() + ledger(1.0, 1.0, 10, 1000))
    for ttft in (0.02,) * 7 + (0.2,) * 4:
        meter.answered(stream(ttft), 2e-6)
    meter.answered(stream(0.02, 503), None)
    return before, Scrape.parse(110.0, generate_latest(registry).decode() + ledger(1.5, 1.5, 55, 1500))


def test_rates_are_of_the_time_between(two: tuple[Scrape, Scrape]) -> None:
    seen = view(*two, SLOS)
    qwen = seen.models[0]
    assert (qwen.replicas, qwen.in_flight, qwen.queued) == (2, 1, 0)
    assert (qwen.requests_per_s, qwen.errors_per_s, qwen.tokens_per_s) == pytest.approx((1.2, 0.1, 50))
    assert qwen.usd_per_hour == pytest.approx(3600 * 0.1) and seen.usd_per_hour == pytest.approx(3600 * 0.15)
    assert qwen.usd_per_request == pytest.approx(2e-6), "without the request before"
    assert qwen.busy == pytest.approx(1 / 3), "cold starts are no time in which it could have worked"
    assert qwen.apis == {"api": pytest.approx(4.0)} and seen.ledger_up is True


def test_quantiles_are_promqls(two: tuple[Scrape, Scrape]) -> None:
    qwen = view(*two, SLOS).models[0]
    assert 0.01 < qwen.ttft_p50_s <= 0.025 and 0.1 < qwen.ttft_p95_s <= 0.25
    assert not qwen.late and qwen.tpot_p50_s == pytest.approx(0.025, abs=0.005)


def test_a_model_that_did_nothing_is_there(two: tuple[Scrape, Scrape]) -> None:
    llama = view(*two, SLOS).models[1]
    assert (llama.model, llama.replicas, llama.requests_per_s) == ("llama", 0, 0)
    assert llama.ttft_p50_s is None and llama.usd_per_request is None and llama.busy is None


def test_a_counter_that_began_anew_is_not_negative(two: tuple[Scrape, Scrape]) -> None:
    seen = view(two[1], Scrape(120.0, two[0].samples), SLOS)
    assert seen.models[0].tokens_per_s == pytest.approx(100) and seen.usd_per_hour >= 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1.0), (0.25, 0.5), (0.75, 1.5), (1.0, 2.0)])
def test_quantile_is_linear_within_a_bucket(share: float, expected: float) -> None:
    assert quantile(share, [(1.0, 2), (2.0, 4), (float("inf"), 4)]) == expected


def test_quantile_beyond_the_last_bound_and_of_nothing() -> None:
    assert quantile(0.9, [(1.0, 1), (float("inf"), 10)]) == 1.0
    assert quantile(0.5, []) is None and quantile(0.5, [(1.0, 0), (float("inf"), 0)]) is None
