"""The fleet's own metrics during a run: read, written beside the records, and put on the run's clock."""

from __future__ import annotations

import json

import pytest
from http_server import Handler, listening
from load_samples import make_record, make_run
from test_load_report import RECORDS, SCENARIO, Page, report
from test_load_run import run, write_scenario

from loadtests.errors import ReportError
from loadtests.fleetseries import FleetSample, ModelSample, read_samples, sample_of
from loadtests.report import build, render_html
from loadtests.report.build import Inputs, report_of
from loadtests.report.fleetline import bill, fleet_line
from loadtests.runinfo import ScrapeFacts, load_run_info

EXPORTER = """# HELP flotilla_replicas Replicas that take requests now.
# TYPE flotilla_replicas gauge
flotilla_replicas{model="a"} 2.0
flotilla_replicas{model="b"} 0.0
flotilla_requests_queued{model="a"} 3.0
flotilla_replica_seconds_total{model="a",state="cold_start"} 12.5
flotilla_replica_seconds_total{model="a",state="idle"} 99.0
flotilla_cost_usd_total{model="a",tenant="x",bucket="direct"} 0.25
flotilla_cost_usd_total{model="a",tenant="y",bucket="direct"} 0.5
flotilla_cost_usd_total{model="",tenant="",bucket="overhead"} 0.125
something_else{le="0.1"} 1
"""
ENGINE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="/path"} 4.0
vllm:num_requests_waiting{engine="0",model_name="/path"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="/path"} 0.5
"""


@pytest.mark.parametrize(
    ("seconds", "starting"),
    [
        ([0, 1, 2, 2], [None, 1, 1, 0]),
        ([0, 0, 0, 0, 3, 4], [None, 0, 1, 1, 1, 1]),  # told late by one that starts
        ([5, 5, 9], [None, 2, 2]),  # there is no more room: two at least
        ([0, 2, 4, 4], [None, 2, 2, 0]),  # two that tell in time
        ([None, None, None, 2, 3], [None, 0, 1, 1, 1]),  # the first replica ever
        ([None, 50, 51], [None, None, 1]),  # had begun before anyone looked
    ],
)
def test_cold_starts_lie_where_they_were_whenever_they_are_told(seconds: list, starting: list) -> None:
    taken = [FleetSample(at_unix=n, models={"a": ModelSample(cold_start_s=value)}) for n, value in enumerate(seconds)]
    line = fleet_line(taken, 0.0)
    assert line is not None and line.models["a"].starting == starting


def test_a_scrape_keeps_what_is_read_beside_a_load_test():
    other = ENGINE.replace("4.0", "2.0").replace("0.5", "0.1")
    found = sample_of(5.0, EXPORTER, [("a", ENGINE), ("a", other)])
    a = found.models["a"]
    assert (a.replicas, a.queued, a.cold_start_s, a.cost_usd) == (2, 3, 12.5, 0.75)
    assert (a.running, a.waiting) == (6, 2) and a.kv_used == pytest.approx(0.3)
    assert found.models[""].cost_usd == 0.125 and found.models["b"].replicas == 0
    assert found.models["b"].running is None, "not told is not zero"


def samples(*costs: float | None, every: float = 10.0) -> list[FleetSample]:
    return [
        FleetSample.model_validate({"at_unix": 1_800_000_000 + number * every, "models": {
            "a": {"replicas": 1 + (number > 1), "cold_start_s": min(number, 2) * 10.0, "cost_usd": cost, "queued": 1.0,
                  "waiting": 2.0, "running": 3.0, "kv_used": 0.25},
            "": {"cost_usd": None if cost is None else 0.0}}})
        for number, cost in enumerate(costs)
    ]


def test_series_are_on_the_runs_clock_and_counters_become_rates():
    line = fleet_line(samples(0.0, 1.0, 3.0, 2.0), 1_800_000_005.0)
    assert line.at_s == [-5, 5, 15, 25]
    a = line.models["a"]
    assert a.replicas == [1, 1, 2, 2] and a.starting == [None, 1.0, 1.0, 0.0] and a.waiting == [3, 3, 3, 3]
    assert a.usd_per_hour == [None, 360.0, 720.0, None], "a counter that fell tells nothing"
    assert fleet_line([], 0.0) is None


def test_the_bill_of_a_stretch_is_read_off_the_counter():
    line = fleet_line(samples(0.0, 1.0, 3.0), 1_800_000_000.0)
    assert bill(line, 5.0, 15.0) == pytest.approx(1.5)
    assert bill(line, 5.0, 21.0) is None and bill(None, 0.0, 1.0) is None
    assert bill(fleet_line(samples(None, None), 1_800_000_000.0), 1.0, 2.0) is None


def test_the_report_draws_them_under_the_latencies():
    made = report_of(Inputs(run=make_run(SCENARIO), records=RECORDS, context=None, ledger=None,
                            samples=samples(0.0, 0.001, 0.002, every=4.0)))
    page = Page(render_html(made))
    for text in ("replicas in cold start", "KV cache in use, %", "USD per hour", "3 samples on the same clock"):
        assert text in page.text, text
    assert page.open == []
    blind = report(run=make_run(SCENARIO, scrape=ScrapeFacts(samples=0, failed=3, last_error="refused <b>")))
    assert "could not be read: refused <b>" in Page(render_html(blind)).text


def test_a_stretchs_cost_is_the_whole_bill_where_it_is_known():
    spans = [{"name": "hold", "kind": "hold", "start_s": 0, "end_s": 8, "measured": True}]
    found = [make_record(stage="hold"), make_record(stage="hold", model="b")]
    inputs = Inputs(run=make_run(SCENARIO, stages=spans), records=found, context=None, ledger=None,
                    samples=samples(0.0, 0.001, 0.002, every=4.0))
    figures = report_of(inputs).stages[0].figures
    assert figures.cost_basis == "fully_loaded" and figures.cost_per_good_request_usd == pytest.approx(0.001)


def test_a_file_with_a_torn_end_is_read_and_a_wrong_line_is_named(tmp_path):
    path = tmp_path / "fleet.jsonl"
    assert read_samples(path) == []
    path.write_text(samples(1.0)[0].model_dump_json() + '\n{"at_un')
    assert len(read_samples(path)) == 1
    path.write_text("{}\n")
    with pytest.raises(ReportError, match="fleet.jsonl:1: not a sample"):
        read_samples(path)


@pytest.fixture
def exporter():
    """An exporter with one engine, both on one port; every second look at the exporter fails."""
    looks = []

    class Answers(Handler):
        def do_GET(self):  # noqa: N802
            text, status = ENGINE, 200
            if self.path == "/fleet":
                looks.append(self.path)
                text, status = EXPORTER, 503 if len(looks) == 2 else 200
            elif self.path == "/targets":
                here = {"targets": [f"127.0.0.1:{self.server.server_port}"], "labels": {"model": "a"}}
                text = json.dumps([here, {"targets": ["127.0.0.1:1"], "labels": {"model": "b"}}])
            self.send_whole(status, text.encode())

    with listening(Answers) as url:
        yield url


def test_a_run_looks_at_the_fleet_and_survives_a_look_that_fails(start_fake, exporter, tmp_path):
    options = ("--metrics", f"{exporter}/fleet", "--engines", f"{exporter}/targets", "--duration", "3", "--report")
    code, said = run(write_scenario(tmp_path), start_fake().url, tmp_path, *options)
    assert code in (0, 3), said
    info, found = load_run_info(tmp_path / "run.json"), read_samples(tmp_path / "fleet.jsonl")
    assert info.scrape.failed == 1 and "503" in info.scrape.last_error and info.scrape.samples == len(found) >= 3
    assert found[0].at_unix <= info.started_unix and found[-1].at_unix >= info.started_unix + 3
    assert found[-1].models["a"].running == 4
    assert build(tmp_path).fleet_line is not None and (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("options", "words"), [
    (("--metrics", "127.0.0.1:9464"), "--metrics 127.0.0.1:9464: expected http://"),
    (("--engines", "http://127.0.0.1:1/targets"), "give that too"),
])
def test_bad_addresses_of_metrics_are_named(tmp_path, options, words):
    code, said = run(write_scenario(tmp_path), "http://127.0.0.1:1", tmp_path / "out", *options)
    assert code == 2 and words in said
