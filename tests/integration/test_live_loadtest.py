"""A short load test of the mix by the command line: its report says what the ledger says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from live_fleet import LiveFleet, nano

pytestmark = pytest.mark.integration


def scenario(folder: Path) -> Path:
    """Seven seconds of short chats on both models."""
    user = {"kind": "chat", "weight": 1, "stream_share": 0.7,
            "prompt_tokens": {"kind": "lognormal", "median": 40, "sigma": 0.4, "low": 16, "high": 80},
            "output_tokens": {"kind": "lognormal", "median": 12, "sigma": 0.3, "low": 6, "high": 24}}
    file = folder / "short.yaml"
    file.write_text(yaml.safe_dump({
        "name": "short", "description": "Short chats.", "duration_s": 7, "warmup_s": 1, "seed": 7,
        "arrivals": {"process": "poisson", "rate_per_s": 4}, "request_timeout_s": 30, "exact_output": True,
        "words_per_token": 0.4, "slo_attainment": 0.5,
        "models": {model: {"weight": 1, "users": [user]} for model in ("qwen", "llama")},
    }))
    return file


def test_a_load_tests_report_agrees_with_the_ledger(fleet: LiveFleet, tmp_path: Path) -> None:
    fleet.settled()  # the report's window is the whole fleet's
    out, began = tmp_path / "report", time.time()
    done = fleet.run("loadtest", str(scenario(tmp_path)), "--out", str(out), "--json", timeout_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    assert json.loads(done.stdout) == report
    assert report["verdict"]["result"] == "pass" and not report["verdict"]["certain"], "a few requests prove little"
    assert set(report["models"]) == {"qwen", "llama"} and report["errors"] == []

    rows = {model: (count, prompt, completion, nanousd) for model, count, prompt, completion, nanousd in fleet.rows(
        "SELECT q.model, COUNT(*), SUM(q.prompt_tokens), SUM(q.completion_tokens), SUM(c.direct) FROM requests q"
        " JOIN keys k USING (key_id) JOIN charges c USING (request_id)"
        " WHERE k.name = 'load test' AND q.started_at >= ? AND q.outcome = 'finished' GROUP BY 1", began)}
    assert sum(count for count, *_ in rows.values()) >= 10
    for model, found in report["models"].items():
        whole, (count, prompt, completion, nanousd) = found["whole_run"], rows[model]
        assert whole["requests"] == whole["succeeded"] == found["ledger_requests"] == count
        assert (whole["errors"], whole["input_tokens"], whole["output_tokens"]) == (0, prompt, completion)
        assert nano(found["buckets_usd"]["direct"]) == nanousd
        assert min(found["fully_loaded_cost_per_request_usd"], found["charged_cost_per_request_usd"]) > 0
        assert found["buckets_usd"]["overhead"] > 0
    assert {k["name"]: k["revoked_at"] for k in json.loads(fleet.say("keys", "list", "--json"))}["load test"]

    page = (out / "report.html").read_text()
    assert "short" in page and "qwen" in page
    loaded = re.findall(r"""(?:src|href|action)\s*=\s*["']?(?!#|data:)([^"'\s>]+)|url\((?!["']?(?:#|data:))""", page)
    assert loaded == [], "the page loads nothing"
    assert {p.name for p in tmp_path.iterdir()} == {"short.yaml", "report"}, "no half-made report is left"
