"""Sums of the ledger as metrics: they add up to the bill, never go backwards, and no scrape waits for what is slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import ledgermetrics
from serving.errors import LedgerError
from serving.fleet.records import Amounts, SourceRecord, StepFit, Tokens
from serving.ledger import sums
from serving.ledger.durable import own_spool
from serving.ledgermetrics import BusyWindow, LedgerSamples, samples
from serving.telemetry.exporter import SampleCollector, Target
from serving.telemetry.metrics import BY_NAME

COST, ALLOCATED = "flotilla_cost_usd_total", "flotilla_allocated_cost_usd_total"
FIT = StepFit(0.01, 1e-4, 0.0, 0.0, 900, 0.05)


def source(name: str = "r1", **changes: Any) -> sums.SourceState:
    alive = changes.pop("alive", True)
    row = SourceRecord(name, "replica", "qwen", "core", "127.0.0.1:1", 1_000, 1.0, 2.0, True, False, 100, 10, 60, 30, 7,
                       40, 0, 2, "step-shapley-fit")
    return sums.SourceState(replace(row, **changes), alive)


def overhead(name: str, role: str, nanousd: int, **changes: Any) -> sums.SourceState:
    return source(name, role=role, model="", variant="", endpoint="", elapsed_ns=100, cold_ns=0, idle_ns=0, busy_ns=0,
                  cold_nanousd=0, idle_nanousd=0, overhead_nanousd=nanousd, folded_steps=0, method="window", **changes)


def tenant(name: str = "demo", model: str = "qwen", amounts: Amounts = Amounts(11, 3, 5, 2),  # noqa: B008
           compared: dict[str, int] | None = None) -> sums.TenantTotal:
    return sums.TenantTotal(model, name, amounts, 4, 1, Tokens(9, 4, 3), compared or {})


def totals(*sources: sums.SourceState, tenants: tuple[sums.TenantTotal, ...] = ()) -> sums.Totals:
    return sums.Totals(sources, tenants, {}, {})


def values(found: sums.Totals) -> dict[tuple[str, ...], float]:
    """Name and labels to value; nothing told twice."""
    made = list(samples(found))
    assert len({(s.name, s.labels) for s in made}) == len(made), "a sample is there twice"
    for sample in made:
        assert len(sample.labels) == len(BY_NAME[sample.name].labels)
    return {(s.name, *s.labels): s.value for s in made}


def nano(usd: float) -> int:
    return round(usd * 1e9)


def test_the_bill_by_bucket() -> None:
    found = values(totals(
        source("r1"), source("r2", alive=False, idle_nanousd=2), source("r3", model="llama", idle_tenant="owner"),
        overhead("g1", "gateway", 100), overhead("g2", "gateway", 20), overhead("h", "head", 3),
        tenants=(tenant(), tenant("other", amounts=Amounts(1, 0)), tenant(model="llama", amounts=Amounts(0, 6)))))
    assert {k[1:]: nano(v) for k, v in found.items() if k[0] == COST} == {
        ("qwen", "demo", "direct"): 11, ("qwen", "demo", "waste"): 3,
        ("qwen", "other", "direct"): 1, ("qwen", "other", "waste"): 0,
        ("llama", "demo", "direct"): 0, ("llama", "demo", "waste"): 6,
        ("qwen", "", "idle"): 42, ("qwen", "", "cold_start"): 14,
        ("llama", "owner", "idle"): 40, ("llama", "owner", "cold_start"): 7,
        ("", "", "overhead"): 123,
    }
    assert {k[1:]: nano(v) for k, v in found.items() if k[0] == ALLOCATED and v} == {
        ("qwen", "demo", "idle"): 5, ("qwen", "demo", "cold_start"): 2}


MONEY = st.integers(0, 10**14)
SOURCES = st.builds(lambda n, model, idle, cold, owner: source(f"r{n}", model=model, idle_nanousd=idle,
                                                               cold_nanousd=cold, idle_tenant=owner),
                    st.integers(0, 9), st.sampled_from(["qwen", "llama"]), MONEY, MONEY, st.sampled_from(["", "demo"]))
OVERHEADS = st.builds(overhead, st.just("x"), st.sampled_from(["gateway", "head", "storage"]), MONEY)
TENANTS = st.builds(lambda name, model, d, w, i, c: tenant(name, model, Amounts(d, w, i, c)),
                    st.sampled_from(["demo", "shop"]), st.sampled_from(["qwen", "llama"]), MONEY, MONEY, MONEY, MONEY)


@given(st.lists(st.one_of(SOURCES, OVERHEADS), max_size=6),
       st.lists(TENANTS, max_size=4, unique_by=lambda t: (t.model, t.tenant)))
def test_costs_add_up_to_the_bill(sources: list[sums.SourceState], tenants: list[sums.TenantTotal]) -> None:
    found = totals(*sources, tenants=tuple(tenants))
    told = sum(nano(v) for k, v in values(found).items() if k[0] == COST)
    assert told == sum(model.bill_nanousd for model in found.models().values())


@given(SOURCES, TENANTS, MONEY, MONEY, st.integers(0, 100))
def test_no_counter_goes_backwards_when_a_request_ends_that_draws_from_the_idle_time(
        at: sums.SourceState, before: sums.TenantTotal, work: int, drawn: int, idle: int) -> None:
    later = replace(at, record=replace(at.record, idle_nanousd=at.record.idle_nanousd + idle))
    ended = replace(before, amounts=before.amounts + Amounts(work, 0, drawn, 0))
    then, now = values(totals(at, tenants=(before,))), values(totals(later, tenants=(ended,)))
    for key, value in then.items():
        assert now[key] >= value


def test_replicas_time_tokens_and_comparisons() -> None:
    found = values(totals(
        source("r1"), source("r2"), source("r3", alive=False), source("r4", ready=False), overhead("h", "head", 1),
        tenants=(tenant(compared={"gpt": 8, "r1": 2}), tenant("other", compared={"gpt": 1}))))
    assert found["flotilla_replicas", "qwen"] == 2
    assert found["flotilla_ledger_folded_steps_total", "qwen"] == 8
    assert [found["flotilla_replica_seconds_total", "qwen", state] for state in ("cold_start", "idle", "busy")] == [
        pytest.approx(4e-8), pytest.approx(2.4e-7), pytest.approx(1.2e-7)]
    assert [found["flotilla_tokens_total", "qwen", "demo", kind] for kind in ("prompt", "cached", "completion")] == [
        9, 4, 3]
    assert {k[1:]: nano(v) for k, v in found.items() if k[0] == "flotilla_counterfactual_usd_total"} == {
        ("qwen", "demo", "gpt"): 8, ("qwen", "demo", "r1"): 2, ("qwen", "other", "gpt"): 1}
    assert not any(k[1] == "" for k in found if k[0] in ("flotilla_replicas", "flotilla_replica_seconds_total"))


def test_what_was_not_metered_is_told_by_who_could_not_write() -> None:
    found = values(totals(source(unmetered=3), source("r2", unmetered=4), overhead("g", "gateway", 1, unmetered=9)))
    assert (found["flotilla_ledger_unmetered_requests_total", "replica"],
            found["flotilla_ledger_unmetered_requests_total", "gateway"]) == (7, 9)


def step_models(*sources: sums.SourceState) -> dict[tuple[str, ...], float]:
    return {k: v for k, v in values(totals(*sources)).items() if "step_model" in k[0]}


FITTED, ERROR = "flotilla_step_model_fitted", "flotilla_step_model_error_ratio"


def test_a_step_model_is_as_good_as_that_of_the_worst_replica() -> None:
    worse = replace(FIT, error_ratio=0.2)
    assert step_models(source(fit=FIT), source("r2", fit=worse), source("r3", variant="h100", fit=FIT)) == {
        (FITTED, "qwen", "core"): True, (ERROR, "qwen", "core"): 0.2,
        (FITTED, "qwen", "h100"): True, (ERROR, "qwen", "h100"): 0.05}


def test_a_variant_without_a_fit_says_so_and_has_no_error() -> None:
    assert step_models(source()) == {(FITTED, "qwen", "core"): False}
    assert step_models(source(fit=FIT), source("r2")) == {
        (FITTED, "qwen", "core"): False, (ERROR, "qwen", "core"): 0.05}
    assert step_models(source(fit=replace(FIT, error_ratio=None))) == {(FITTED, "qwen", "core"): True}


def test_replicas_that_are_gone_have_no_step_model() -> None:
    assert step_models(source(fit=FIT, alive=False), source("r2", ready=False)) == {}


# -- busy


def test_the_busy_ratio_is_that_of_the_window() -> None:
    busy = BusyWindow(300)
    assert busy.ratios(0, {"qwen": (1_000, 0)}) == {}
    assert busy.ratios(10, {"qwen": (1_030, 10)}) == {"qwen": 0.75}
    assert busy.ratios(20, {"qwen": (1_030, 50), "new": (3, 1)}) == {"qwen": 0.375, "new": 0.75}
    assert busy.ratios(315, {"qwen": (1_070, 50)}) == {"qwen": 0.5}  # since the reading at 10
    assert busy.ratios(900, {"qwen": (1_070, 90)}) == {"qwen": 0.0}  # since the one at 315


def test_without_time_there_is_no_busy_ratio() -> None:
    busy = BusyWindow()
    busy.ratios(0, {"qwen": (5, 5)})
    assert busy.ratios(1, {"qwen": (5, 5)}) == {}
    assert busy.ratios(2, {"qwen": (0, 9)}) == {}, "rows of its replicas were removed"


def test_the_window_does_not_grow() -> None:
    busy = BusyWindow(10)
    for now in range(1_000):
        busy.ratios(now, {"qwen": (now, now)})
    assert len(busy._seen) <= 12


# -- what a scrape calls


@dataclass
class Ledger:
    """What `sums` is asked of."""

    found: sums.Totals
    residual: int = 0
    away: bool = False
    reconciled: int = 0
    gate: threading.Event | None = None  # for the totals
    slow: threading.Event | None = None  # for the residual


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    made = Ledger(totals(source("r1", endpoint="10.0.0.1:80"), source("r2", ready=False), source("r3", alive=False)))

    def read(ledger: Ledger, now: float) -> sums.Totals:
        if ledger.gate is not None:
            ledger.gate.wait(10)
        if ledger.away:
            raise LedgerError("the database is away")
        return ledger.found

    def reconcile(ledger: Ledger) -> SimpleNamespace:
        ledger.reconciled += 1
        if ledger.slow is not None:
            ledger.slow.wait(10)
        return SimpleNamespace(residual_nanousd=ledger.residual)

    monkeypatch.setattr(sums, "totals", read)
    monkeypatch.setattr(sums, "reconcile", reconcile)
    yield made
    for gate in (made.gate, made.slow):
        if gate is not None:
            gate.set()


def scraped(made: LedgerSamples) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels): s.value for s in made()}


RESIDUAL = ("flotilla_attribution_residual_nanousd",)


def until(so: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if so():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to be")


def test_the_residual_is_computed_beside_scrapes_and_seldom(ledger: Ledger) -> None:
    now = [1_000.0]
    made = LedgerSamples(ledger, clock=lambda: now[0])
    ledger.slow, ledger.residual = threading.Event(), 5
    assert RESIDUAL not in scraped(made), "a scrape has waited for it, or made it up"
    ledger.slow.set()
    until(lambda: scraped(made).get(RESIDUAL) == 5)
    for _ in range(9):
        now[0] += 3
        scraped(made)
    assert ledger.reconciled == 1
    now[0], ledger.residual = now[0] + 4, 0
    until(lambda: scraped(made).get(RESIDUAL) == 0)
    assert ledger.reconciled == 2


def test_utilisation_stands_beside_break_even(ledger: Ledger) -> None:
    against = (SimpleNamespace(name="gpt", breakeven=0.2), SimpleNamespace(name="free", breakeven=None))
    model = SimpleNamespace(model="qwen", utilisation=0.4, against=against)
    made = LedgerSamples(ledger, lambda: iter([model]))
    until(lambda: ("flotilla_utilisation_ratio", "qwen") in scraped(made))
    found = {k: v for k, v in scraped(made).items() if "utilisation" in k[0]}
    assert found == {("flotilla_utilisation_ratio", "qwen"): 0.4,
                     ("flotilla_breakeven_utilisation_ratio", "qwen", "gpt"): 0.2}


def test_a_failure_of_what_is_slow_leaves_the_rest(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def broken(ledger: Ledger) -> None:
        failed.set()
        raise LedgerError("too much of it")

    monkeypatch.setattr(sums, "reconcile", broken)
    made = LedgerSamples(ledger)
    assert ("flotilla_replicas", "qwen") in scraped(made)
    assert failed.wait(5)
    assert RESIDUAL not in scraped(made)


def test_a_ledger_that_is_away_is_an_error_of_the_scrape(ledger: Ledger) -> None:
    made = LedgerSamples(ledger)
    ledger.away = True
    for ask in (made, made.targets):
        with pytest.raises(LedgerError, match="away"):
            ask()
    ledger.away = False
    assert scraped(made)


def test_a_ledger_that_hangs_holds_up_no_scrape(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgermetrics, "_READ_S", 0.05)
    made = LedgerSamples(ledger)
    ledger.gate = threading.Event()
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(LedgerError, match="does not answer"):
            made()
    assert threading.active_count() <= before + 1, "each scrape left a thread behind"
    ledger.gate.set()
    until(lambda: threading.active_count() <= before)
    assert scraped(made)


def test_replicas_that_take_requests_are_targets(ledger: Ledger) -> None:
    assert LedgerSamples(ledger).targets() == [Target("10.0.0.1:80", "qwen", "r1")]


def test_every_sample_is_of_the_table(ledger: Ledger) -> None:
    families = {f.name: f for f in SampleCollector(LedgerSamples(ledger)).collect()}
    assert families["flotilla_cost_usd"].samples and families["flotilla_ledger_up"].samples[0].value == 1


# -- what waits on disk


def test_spools_are_told_by_kind_of_process(tmp_path: Path) -> None:
    assert list(ledgermetrics.spools(tmp_path / "none")) == []
    for name, size in (("gateway", 100), ("gateway", 20), ("replica-qwen", 7), ("exporter", 0)):
        folder = own_spool(tmp_path, name, 1 << 20).folder
        (folder / "rows").write_bytes(b"x" * size)
    found = {s.labels: s.value for s in ledgermetrics.spools(tmp_path)}
    assert found == {("gateway",): 120, ("replica-qwen",): 7, ("exporter",): 0}
