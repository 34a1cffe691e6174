"""The fairness benchmark: what it sends, what it reads, and when it says that the goal is missed. No engine here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from serving.bench import fairness
from serving.bench.client import BadLoad
from serving.bench.fairness import FairnessPlan, held_together, read, scenario, seen
from serving.cli.main import app


def written(folder: Path, *rows: dict) -> Path:
    file = folder / "records.jsonl"
    base = {"warmup": False, "error": None, "first_content": 1.01, "sent": 1.0}
    file.write_text("".join(json.dumps(base | row) + "\n" for row in rows))
    return file


def test_records_become_percentiles_and_errors_are_counted(tmp_path: Path) -> None:
    found = seen(read(written(tmp_path, {}, {"first_content": 1.03}, {"warmup": True, "first_content": 9.0},
                              {"error": {"kind": "http_429", "detail": ""}, "first_content": None})))
    assert (found["sent"], found["answered"], found["errors"]) == (3, 2, {"http_429": 1})
    assert found["ttft_ms"]["p50"] == 20.0


def test_a_run_without_answers_is_none(tmp_path: Path) -> None:
    (tmp_path / "locust.log").write_text("nothing answers")
    with pytest.raises(BadLoad, match="nothing answers"):
        read(written(tmp_path))
    with pytest.raises(BadLoad, match="it never began"):
        read(tmp_path / "none" / "records.jsonl")
    with pytest.raises(BadLoad, match=r"none of 1 requests was answered: \{'http_429': 1\}"):
        seen(read(written(tmp_path, {"error": {"kind": "http_429", "detail": ""}})))


def test_all_rounds_requests_make_one_ratio(tmp_path: Path) -> None:
    alone, beside = ([{"sent": 0.0, "first_content": at / 1e3, "error": None} for at in range(low, low + 100)]
                     for low in (1, 101))
    assert held_together({"alone": alone, "beside": beside, "greedy": alone})["ratio"] == pytest.approx(2.01, abs=0.02)


def test_the_load_generator_takes_the_scenario(tmp_path: Path) -> None:
    from loadtests.scenario import load_scenario

    file = tmp_path / "scenario.yaml"
    file.write_text(scenario(FairnessPlan(tmp_path), 7.5, 12.0, 3))
    found = load_scenario(file)
    assert found.seed == 3 and yaml.safe_load(file.read_text())["arrivals"]["rate_per_s"] == 7.5


@pytest.mark.parametrize(("ratio", "code"), [(1.2, 0), (1.9, 1)])
def test_a_missed_goal_is_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float,
                                        code: int) -> None:
    row = {"sent": 9, "answered": 8, "errors": {"http_429": 1}, "ttft_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0}}
    report = {"alone": row, "beside": row, "greedy": row, "ratio": ratio, "target": fairness.TARGET, "ratios": [ratio]}
    monkeypatch.setattr(fairness, "measure", lambda plan, say: report)
    monkeypatch.setenv("FLOTILLA_REPORTS_DIR", str(tmp_path))
    done = CliRunner().invoke(app, ["bench", "fairness"])
    assert done.exit_code == code, done.output
    assert ("within" in done.output) == (code == 0) and "http_429 1" in done.output
    assert json.loads((tmp_path / "bench-fairness.json").read_text())["ratio"] == ratio
