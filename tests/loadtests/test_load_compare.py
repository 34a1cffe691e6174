"""Two runs compared: rarely an alarm where nothing changed, always one where much did, and never about invalid runs."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from load_samples import CHAT, make_record, make_run, make_scenario

from loadtests.metrics import quantiles
from loadtests.report.build import Inputs
from loadtests.report.compare import main
from loadtests.report.comparing import compare_runs, thresholds

SLO = {"ttft_ms": 300.0, "tpot_ms": 30.0}
SCENARIO = make_scenario(models={name: {"users": [CHAT], "slo": SLO} for name in "ab"}, duration_s=100.0)


def records(seed: int, slower: float = 1.0, failing: int = 0):
    """Two hundred streams for each model with log-normal first tokens and paces; `failing` of them broke."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(400):
        at, first = number / 4, slower * 0.08 * float(np.exp(0.3 * rng.normal()))
        pace = 0.1 * float(np.exp(0.2 * rng.normal()))
        times = {"scheduled": at, "sent": at, "first_content": at + first, "last_content": at + first + pace,
                 "ended": at + first + pace}
        error = {"kind": "http_500", "detail": "no"} if rng.random() < failing / 400 else None
        found.append(make_record(model="ab"[number % 2], arrival=number, error=error, **times))
    return found


def inputs(found, **changes) -> Inputs:
    run = make_run(SCENARIO, ended_unix=1_800_000_100.0, requests=len(found), **changes)
    return Inputs(run=run, records=found, context=None, ledger=None)


def compared(base, new, **given):
    return compare_runs(base, new, thresholds(given))


def test_equal_fleets_rarely_alarm_even_without_thresholds():
    none = dict.fromkeys(thresholds({}), 0.0)
    alarms = [compared(inputs(records(seed)), inputs(records(seed + 1000)), **none).result for seed in range(12)]
    assert alarms.count("regression") <= 2, alarms


def test_a_slower_fleet_is_a_regression_that_is_named():
    found = compared(inputs(records(1)), inputs(records(2, slower=1.6)))
    assert found.result == "regression"
    assert any(reason.startswith("a: TTFT p50 +") and "surely more than +10.0%" in reason for reason in found.reasons)
    one = next(d for d in found.differences if (d.scope, d.key) == ("a", "ttft_p50"))
    assert one.change.low < 0.6 < one.change.high and one.p < 1e-4
    assert {d.outcome for d in found.differences if d.key == "tpot_p50"} <= {"unchanged", "undecided"}


def test_what_may_change_is_said_per_figure():
    base, new = inputs(records(1)), inputs(records(2, slower=1.6))
    wide = dict.fromkeys(("ttft_p50", "ttft_p95", "e2e_p50", "e2e_p95"), 1.0)
    assert compared(base, new, **wide).result == "no regression"


def test_a_faster_fleet_is_an_improvement_and_failures_are_a_regression():
    better = compared(inputs(records(1, slower=1.6)), inputs(records(2)))
    assert better.result == "no regression"
    assert next(d for d in better.differences if d.key == "ttft_p50").outcome == "improvement"
    worse = compared(inputs(records(1)), inputs(records(2, failing=120)))
    assert worse.result == "regression" and any("requests failed" in reason for reason in worse.reasons)


def test_an_invalid_run_is_never_compared():
    late = inputs(records(2, slower=3), dispatch_lateness_ms=quantiles([500.0]))
    found = compared(inputs(records(1)), late)
    assert found.result == "invalid" and found.reasons[0].startswith("new: dispatch lateness")


def test_what_else_differs_is_noted():
    other = make_scenario(models={"a": {"users": [CHAT], "slo": SLO}}, duration_s=100.0)
    only_a = [record for record in records(1) if record.model == "a"]
    new = Inputs(run=make_run(other, seed=9), records=only_a, context=None, ledger=None)
    notes = compared(inputs(records(1)), new).notes
    assert any("seed: 1, 9" in note for note in notes) and any("Only in one of the runs: b" in note for note in notes)


@pytest.fixture
def folders(tmp_path):
    for name, found in (("base", records(1)), ("same", records(2)), ("slow", records(3, slower=1.6))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(inputs(found).run.model_dump_json())
        (folder / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in found))
    return tmp_path


def test_the_command_exits_with_what_it_found(folders, capsys):
    assert main([str(folders / "base"), str(folders / "same")]) == 0
    assert "NO REGRESSION" in capsys.readouterr().out
    out = folders / "out"
    assert main([str(folders / "base"), str(folders / "slow"), "--out", str(out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads((out / "compare.json").read_text())
    suite = ElementTree.fromstring((out / "compare.xml").read_text()).find("testsuite")
    assert int(suite.get("failures")) >= 2 and int(suite.get("tests")) == len(suite.findall("testcase"))
    assert "**REGRESSION**" in (out / "compare.md").read_text()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--threshold", "ttft_p500=0.1"], "did you mean 'ttft_p50'"),
    (["--threshold", "ttft_p50"], "expected FIGURE=NUMBER"),
    (["--threshold", "ttft_p50=-1"], "at least 0"), ([], "run.json"),
])
def test_bad_arguments_say_what_would_be_right(folders, capsys, arguments, words):
    new = folders / "same" if arguments else folders / "nowhere"
    assert main([str(folders / "base"), str(new), *arguments]) == 2
    assert words in capsys.readouterr().err
