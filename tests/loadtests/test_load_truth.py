"""What is measured against a server of known timing: fifty streams at once, a server that stalls, one that dies."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from load_samples import CHAT
from test_load_run import run, start, write_scenario

from loadtests import metrics
from loadtests.records import read_records
from loadtests.report import build
from loadtests.runinfo import load_run_info

TTFT_MS, ITL_MS = 200.0, 30.0


def test_fifty_streams_at_once_are_measured_as_they_were_served(start_fake, tmp_path):
    """Within 3% or 3 ms of what the server was set to."""
    fake = start_fake("--ttft-s", str(TTFT_MS / 1e3), "--itl-s", str(ITL_MS / 1e3))
    tokens = {"kind": "constant", "value": 25}
    models = {"a": {"users": [CHAT | {"output_tokens": tokens}]}}
    # evenly spread: fifty users who begin together stay together, and then each burst of fifty is what takes the time
    steady = {"process": "constant", "rate_per_s": 52 / ((TTFT_MS + 24 * ITL_MS) / 1e3)}
    code, said = run(write_scenario(tmp_path, models=models, arrivals=steady, duration_s=4.0), fake.url, tmp_path)
    assert code in (0, 3), said
    found = [record for record in read_records(tmp_path / "records.jsonl") if record.ok]
    middle = [record for record in found if record.sent > 1.0]
    at_once = max(sum(r.sent <= one.sent < r.ended for r in found) for one in middle)
    assert at_once >= 45 and len(middle) > 100
    for metric, truth in ((metrics.ttft_ms, TTFT_MS), (metrics.tpot_ms, ITL_MS)):
        measured = float(np.median([metric(record) for record in middle]))
        assert measured == pytest.approx(truth, abs=max(3.0, 0.03 * truth)), metric.__name__


def stalled(start_fake, tmp_path, arrivals):
    """A run of five seconds in whose middle the server stands still for 1.2 s."""
    fake = start_fake("--ttft-s", "0.02", "--itl-s", "0.001")
    process = start(write_scenario(tmp_path, models={"a": {"users": [CHAT]}}, arrivals=arrivals, duration_s=5.0),
                    fake.url, tmp_path)
    while not fake.stats()["requests"]:
        time.sleep(0.02)
    time.sleep(1.5)
    fake.process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    fake.process.send_signal(signal.SIGCONT)
    process.communicate(timeout=30)
    return list(read_records(tmp_path / "records.jsonl"))


def test_a_stall_shows_whoever_was_to_come_meanwhile(start_fake, tmp_path):
    """Coordinated omission: an open loop sends what is due during the stall; a closed one keeps quiet about it."""
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    found = stalled(start_fake, tmp_path / "open", {"process": "constant", "rate_per_s": 25.0})
    late = [record for record in found if (metrics.ttft_from_scheduled_ms(record) or 0) > 300]
    # 0.9 s of the stall's arrivals wait longer than 0.3 s: about a fifth of all
    assert 0.12 < len(late) / len(found) < 0.3
    values = [value for record in found if (value := metrics.ttft_from_scheduled_ms(record)) is not None]
    assert np.percentile(values, 95) > 700
    quiet = stalled(start_fake, tmp_path / "closed", {"process": "closed", "users": 1})
    values = [value for record in quiet if (value := metrics.ttft_from_scheduled_ms(record)) is not None]
    assert np.percentile(values, 95) < 300


def test_a_target_that_dies_leaves_partial_results_that_say_so(start_fake, tmp_path):
    fake = start_fake()
    stop = {"error_share": 0.5, "after_requests": 20}
    process = start(write_scenario(tmp_path, models={"a": {"users": [CHAT]}}, duration_s=60.0, stop=stop), fake.url,
                    tmp_path)
    while not fake.stats()["requests"]:
        time.sleep(0.02)
    time.sleep(0.5)
    fake.process.kill()
    _, said = process.communicate(timeout=30)
    info, report = load_run_info(tmp_path / "run.json"), build(tmp_path)
    assert "stopped early" in said and info.stopped_by and info.requests < 700
    assert {group.kind for group in report.errors} <= {"connect", "truncated", "transport"}
    assert report.verdict.result == "fail" and any("Partial results" in note for note in report.notes)
