"""The report as CSV, JUnit XML and Markdown."""

from __future__ import annotations

import csv
from io import StringIO
from xml.etree import ElementTree

import pytest
from load_samples import CHAT, failed, make_record, make_run, make_scenario
from test_load_report import RECORDS, SCENARIO, context, report

from loadtests.report.outputs import csv_text, junit, markdown


def cases(text: str) -> dict[tuple[str, str], str]:
    """Of each test case what became of it."""
    root = ElementTree.fromstring(text)
    return {
        (case.get("classname").rpartition(".")[2], case.get("name")): case[0].tag if len(case) else "passed"
        for case in root.iter("testcase")
    }


def test_csv_has_the_figures_of_report_json():
    made = report()
    rows = {(row["scope"], row["metric"]): row for row in csv.DictReader(StringIO(csv_text(made)))}
    assert float(rows["a", "ttft_p50"]["value"]) == made.models["a"].latencies["ttft"].p50.value
    assert rows["a", "ttft_p99"]["high"] == "" and rows["a", "ttft_p99"]["unit"] == "ms"
    assert float(rows["all", "cost_usd"]["value"]) == pytest.approx(30e-6)
    assert int(rows["all", "requests"]["value"]) == 4


def test_junit_has_a_case_for_each_promise():
    found = cases(junit(report([*RECORDS, failed()], context=context(slo={"ttft_ms": 99.0, "tpot_ms": 12.0}))))
    assert found["run", "the load was what was asked for"] == "passed"
    assert found["a", "no request failed"] == "failure" and found["b", "no request failed"] == "passed"
    assert found["a", "TTFT at most 99 ms for 90% of requests"] == "failure"
    assert found["b", "TPOT at most 12 ms for 90% of requests"] == "passed"


def test_of_an_invalid_run_only_that_is_judged():
    text = junit(report(run=make_run(SCENARIO, interrupted=True)))
    found = cases(text)
    assert found.pop(("run", "the load was what was asked for")) == "failure" and set(found.values()) == {"skipped"}
    root = ElementTree.fromstring(text)
    assert (root.get("failures"), root.get("skipped")) == ("1", str(len(found)))


def test_markdown_says_the_verdict_and_keeps_foreign_text_harmless():
    text = markdown(report([*RECORDS, failed()]))
    assert "FAIL" in text.splitlines()[0] and "- a: 1 of 3 requests failed" in text
    assert "| a | 3 | 1 |" in text and "cheapest proprietary" in text
    evil = "<img src=x>|@someone\n# no"
    scenario = make_scenario(name=evil, models={evil: {"users": [CHAT]}})
    text = markdown(report([make_record(model=evil)], make_run(scenario), context=None, ledger=None))
    assert "<img" not in text and "@someone" not in text and "\n# no" not in text


def test_control_characters_do_not_break_the_xml():
    scenario = make_scenario(name="a\x00b\x1b[1m", models={"a": {"users": [CHAT]}, "b": {"users": [CHAT]}})
    assert ElementTree.fromstring(junit(report(run=make_run(scenario)))).get("name") == "loadtest.a?b?[1m"
