"""Runs of several workers and of several passes, closed loops, and runs that end early, against the fake."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_samples import CHAT, make_record, make_run, make_scenario
from test_load_run import run, write_scenario

from loadtests.arrivals import schedule
from loadtests.metrics import quantiles
from loadtests.passes import Made, Pass, joined_info
from loadtests.records import read_records
from loadtests.report import build
from loadtests.runinfo import load_run_info
from loadtests.scenario import Slo
from loadtests.sweeping import SweepSearch
from loadtests.validity import broken_rules


def test_two_workers_share_one_schedule(start_fake, tmp_path):
    code, said = run(write_scenario(tmp_path), start_fake().url, tmp_path, "--processes", "2")
    assert code in (0, 3), said
    info, records = load_run_info(tmp_path / "run.json"), list(read_records(tmp_path / "records.jsonl"))
    firsts = [record for record in records if record.turn == 1]
    assert sorted(record.arrival for record in firsts) == [arrival.index for arrival in schedule(info.scenario)]
    assert {record.worker for record in records} == {0, 1} == {worker.index for worker in info.workers}
    assert sum(worker.requests for worker in info.workers) == len(records) and not info.lost
    assert all(abs(worker.clock_offset_ms) < 100 for worker in info.workers)


def test_each_model_alone_and_then_the_mix(start_fake, tmp_path):
    code, said = run(write_scenario(tmp_path, duration_s=1.0), start_fake().url, tmp_path, "--interference")
    assert code in (0, 3), said
    info, records = load_run_info(tmp_path / "run.json"), list(read_records(tmp_path / "records.jsonl"))
    assert [stage.name for stage in info.stages] == ["a alone", "b alone", "mix"] and info.kind == "interference"
    models = {stage.name: {r.model for r in records if r.stage == stage.name} for stage in info.stages}
    assert models == {"a alone": {"a"}, "b alone": {"b"}, "mix": {"a", "b"}}
    sizes = {name: sorted(r.max_tokens for r in records if r.stage == name and r.turn == 1 and r.model == "a")
             for name in ("a alone", "mix")}
    assert sizes["a alone"] == sizes["mix"]
    assert build(tmp_path).totals.requests


def test_a_closed_loop_says_so(start_fake, tmp_path):
    arrivals = {"process": "closed", "users": 3}
    code, said = run(write_scenario(tmp_path, arrivals=arrivals, duration_s=1.5), start_fake().url, tmp_path)
    assert code in (0, 3), said
    info, records = load_run_info(tmp_path / "run.json"), list(read_records(tmp_path / "records.jsonl"))
    assert info.loop == "closed" and len(records) > 6 and info.dispatch_lateness_ms["count"] == 0
    at_once = max(sum(r.sent <= one.sent < r.ended for r in records) for one in records)
    assert at_once <= 3


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stop_condition_ends_the_run_and_keeps_what_was_measured(start_fake, tmp_path, processes):
    file = write_scenario(
        tmp_path, models={"m!500": {"users": [CHAT]}}, duration_s=60.0, stop={"error_share": 0.5, "after_requests": 10}
    )
    _, said = run(file, start_fake().url, tmp_path, "--processes", processes)
    info = load_run_info(tmp_path / "run.json")
    assert info.stopped_by and "requests failed" in info.stopped_by and "stopped early" in said
    assert info.requests >= 10 and info.interrupted


def test_a_sweep_finds_a_rate(start_fake, tmp_path):
    sweep = {"kind": "sweep", "low_per_s": 30.0, "high_per_s": 60.0, "search": "grid", "steps": 2, "settle_s": 0.2,
             "step_s": 1.0}
    models = {"a": {"users": [CHAT], "slo": {"ttft_ms": 5000.0, "tpot_ms": 5000.0}}}
    file = write_scenario(tmp_path, models=models, stages=[sweep], slo_attainment=0.5, duration_s=1.2)
    code, said = run(file, start_fake().url, tmp_path)
    assert code in (0, 3), said
    info = load_run_info(tmp_path / "run.json")
    assert [round(step.rate_per_s) for step in info.sweep.steps][:1] == [30] and info.kind == "sweep"
    assert {record.stage for record in read_records(tmp_path / "records.jsonl")} == {s.stage for s in info.sweep.steps}


def joined(kind, *infos):
    scenario = make_scenario(duration_s=2.0)
    steps = [Pass(f"p{n}", "step", scenario, n, rate_per_s=4.0) for n in range(len(infos))]
    made = [Made(step, info, Path("none")) for step, info in zip(steps, infos, strict=True)]
    return joined_info(made, kind)


def test_a_rate_that_the_generator_cannot_send_does_not_spoil_a_sweep():
    scenario = make_scenario(duration_s=2.0)
    good, late = make_run(scenario), make_run(scenario, dispatch_lateness_ms=quantiles([500.0]))
    stopped = make_run(scenario, interrupted=True, stopped_by="too many failed")
    assert broken_rules(joined("sweep", good, stopped, late)) == []
    assert joined("sweep", good, stopped).stopped_by is None
    assert "lateness" in broken_rules(joined("sweep", late))[0]
    assert "lateness" in broken_rules(joined("interference", good, late))[0]


def test_a_spoilt_rate_is_no_upper_end_of_a_sweep():
    stage = {"kind": "sweep", "low_per_s": 4.0, "high_per_s": 8.0, "search": "grid", "steps": 2}
    models = {"a": {"users": [CHAT], "slo": {"ttft_ms": 500.0, "tpot_ms": 500.0}}}
    search = SweepSearch(make_scenario(stages=[stage], models=models, duration_s=35.0, warmup_s=5.0),
                         {"a": Slo(ttft_ms=500.0, tpot_ms=500.0)})
    search.take(search.next(), [make_record(arrival=n) for n in range(80)], valid=True)
    broken = [make_record(arrival=n, error={"kind": "x", "detail": ""}) for n in range(80)]
    search.take(search.next(), broken, valid=False)
    facts = search.facts()
    assert (facts.highest_met_per_s, facts.lowest_missed_per_s) == (pytest.approx(4.0), None)
    assert search.next() is None
