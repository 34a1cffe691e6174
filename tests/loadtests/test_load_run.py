"""The whole way: command line, Locust, gevent, SSE, records and report, against a fake of known timing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from load_samples import CHAT, CONVERSATION, make_scenario, scenario_document

import loadtests
from loadtests import child
from loadtests.arrivals import schedule
from loadtests.errors import RunError
from loadtests.records import read_records
from loadtests.report import build
from loadtests.runinfo import load_run_info

ROOT = Path(loadtests.__file__).resolve().parents[1]
TTFT_MS, ITL_MS = 80.0, 12.0
KNOBS = ("--ttft-s", str(TTFT_MS / 1e3), "--itl-s", str(ITL_MS / 1e3))
MIX = {
    "a": {"weight": 2, "users": [CHAT | {"stream_share": 0.8}]},
    "b": {"weight": 1, "users": [CHAT, CONVERSATION]},
}


def write_scenario(folder: Path, **changes) -> Path:
    arrivals = {"process": "poisson", "rate_per_s": 12.0}
    document = scenario_document(**({"models": MIX, "duration_s": 3.0, "arrivals": arrivals} | changes))
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def start(scenario: Path, url: str, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "loadtests.run", str(scenario), "--base-url", url, "--out", str(out)]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env=os.environ | {"FLOTILLA_API_KEY": "secret"},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(scenario: Path, url: str, out: Path, *options: str) -> tuple[int, str]:
    process = start(scenario, url, out, *options)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.fixture(scope="module")
def measured(start_fake, tmp_path_factory):
    """One run of three seconds: the fake that served it, and the folder with its files."""
    folder = tmp_path_factory.mktemp("run")
    fake = start_fake(*KNOBS, "--models", "a", "b")
    code, said = run(write_scenario(folder), fake.url, folder)
    assert code == 0, said
    return fake.stats(), folder, said


def test_every_request_served_is_recorded_once(measured):
    stats, folder, _ = measured
    records = list(read_records(folder / "records.jsonl"))
    report = build(folder)
    assert len(records) > 25
    assert {name: model.requests for name, model in report.models.items()} == stats["requests"]
    assert report.totals.input_tokens == stats["prompt_tokens"]
    assert report.totals.output_tokens == stats["completion_tokens"]
    assert len({record.request_id for record in records}) == len(records)
    assert all(record.server_request_id == f"server-{record.request_id}" for record in records)
    assert stats["keys"] == {"Bearer secret": len(records)}


def test_what_was_sent_is_the_schedule(measured):
    _, folder, _ = measured
    records = list(read_records(folder / "records.jsonl"))
    firsts = sorted((record for record in records if record.turn == 1), key=lambda record: record.arrival)
    arrivals = schedule(load_run_info(folder / "run.json").scenario)
    assert [(r.arrival, r.scheduled, r.model, r.max_tokens) for r in firsts] == [
        (a.index, a.at_s, a.model, a.turns[0].output_tokens) for a in arrivals
    ]


def test_measured_latencies_are_the_knobs(measured):
    _, folder, _ = measured
    for model in build(folder).models.values():
        assert model.ttft_ms["p50"] == pytest.approx(TTFT_MS, abs=12)
        assert model.tpot_ms["p50"] == pytest.approx(ITL_MS, abs=1.5)


def test_the_fake_costs_what_the_report_says(measured):
    stats, folder, _ = measured
    totals = build(folder).totals
    expected = stats["prompt_tokens"] * 1e-6 + stats["completion_tokens"] * 4e-6
    assert totals.cost_basis == "charged"
    assert totals.cost_usd == pytest.approx(expected)


def test_conversations_grow_by_the_models_own_replies(measured):
    stats, folder, _ = measured
    talks = [body["messages"] for body in stats["bodies"] if body["messages"][0]["role"] == "system"]
    third = [messages for messages in talks if len(messages) == 6]
    assert third
    for messages in third:
        assert [message["role"] for message in messages] == ["system", *("user", "assistant") * 2, "user"]
        assert messages[2]["content"] == messages[4]["content"] == "wörd " * 4
    turns = [record for record in read_records(folder / "records.jsonl") if record.turn > 1]
    assert turns and all(record.lateness_s is None and record.scheduled > 0 for record in turns)
    assert all(record.cached_tokens for record in turns)


def test_the_run_kept_to_its_schedule(measured):
    _, folder, said = measured
    info = load_run_info(folder / "run.json")
    assert info.arrivals.sent == info.arrivals.scheduled
    assert info.arrivals.achieved_share == pytest.approx(1.0, abs=0.02)
    # On a machine that others load too only the median is sure; the limits are tested with the verdict.
    assert info.dispatch_lateness_ms["p50"] < 50
    assert not info.interrupted and info.ended_unix - info.started_unix > 2.5
    assert build(folder).verdict.result != "fail"
    (worker,) = info.workers
    assert 20 < worker.memory_early_mib <= worker.memory_mib < 1000
    assert f"sent {info.requests}  done {info.requests}  errors 0  in flight 0" in said


def test_locusts_own_statistics_agree(measured):
    _, folder, _ = measured
    requests = load_run_info(folder / "run.json").requests
    log = (folder / "locust.log").read_text()
    total = next(line for line in log.splitlines() if line.strip().startswith("Aggregated"))
    assert int(total.split()[1]) == requests


def test_options_failures_and_a_folder_used_before(start_fake, tmp_path):
    fake = start_fake("--error-every", "4")
    (tmp_path / "ledger.json").write_text("an earlier run's")
    context = tmp_path / "fleet.json"
    context.write_text(json.dumps({"fleet": {"name": "f", "file": "x"}, "models": {}}))
    options = ("--quiet", "--seed", "9", "--duration", "1.5", "--context", str(context))
    code, said = run(write_scenario(tmp_path), fake.url, tmp_path, *options)
    assert (code, said) == (0, "")
    assert not (tmp_path / "ledger.json").exists()
    stats, report = fake.stats(), build(tmp_path)
    assert stats["errors"] > 0
    assert report.totals.errors == stats["errors"]
    assert {group.kind for group in report.errors} == {"http_500"}
    assert report.verdict.result == "fail"
    assert (report.run.seed, report.run.duration_s, report.fleet.name) == (9, 1.5, "f")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--duration", "0"), 2, "--duration"),
        (("--context", "/nowhere.json"), 2, "nowhere.json"),
        ((), 4, "nothing answers at 127.0.0.1:1"),
    ],
)
def test_exit_codes(tmp_path, options, code, words):
    result, said = run(write_scenario(tmp_path), "http://127.0.0.1:1", tmp_path / "out", *options)
    assert result == code and words in said


def test_a_bad_scenario_is_named_before_anything_is_touched(tmp_path):
    out = tmp_path / "out"
    result, said = run(write_scenario(tmp_path, warmupp_s=1), "http://127.0.0.1:1", out)
    assert result == 2 and "did you mean 'warmup_s'" in said
    assert not out.exists()


def await_request(fake, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the fake has a request; the run's child processes."""
    deadline = time.monotonic() + 60
    while not fake.stats()["requests"]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_records_and_no_process(start_fake, tmp_path, number):
    fake = start_fake()
    models = {"m!hang": {"users": [CHAT]}}
    process = start(write_scenario(tmp_path, models=models, duration_s=60.0), fake.url, tmp_path)
    children = await_request(fake, process)
    assert children
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=0)[1] == []
    info = load_run_info(tmp_path / "run.json")
    assert info.interrupted and info.errors_by_kind == {"interrupted": info.requests}
    # One that was just leaving may not have arrived; none that arrived may be missing.
    assert info.requests >= fake.stats()["requests"]["m!hang"]
    assert build(tmp_path).verdict.result == "invalid"


def test_a_generator_that_fails_says_why_and_ends(fake, tmp_path):
    nowhere = tmp_path / "missing" / "records.jsonl"
    with child.started(child.Job(make_scenario(), fake.url, nowhere, tmp_path / "log")) as process:
        assert not any(progress.final for progress in process.progress())
        with pytest.raises(RunError, match="No such file"):
            process.check()


def test_a_run_stopped_before_it_began_is_interrupted_too(fake, tmp_path):
    process = start(write_scenario(tmp_path), fake.url, tmp_path / "out")
    # The child's log is opened just before the child; Locust then takes a while to import.
    while not (tmp_path / "out" / "locust.log").exists():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert psutil.wait_procs(children, timeout=0)[1] == []


def test_a_killed_run_takes_its_child_with_it(start_fake, tmp_path):
    fake = start_fake()
    process = start(write_scenario(tmp_path, duration_s=60.0), fake.url, tmp_path)
    children = await_request(fake, process)
    assert children
    process.kill()
    process.communicate(timeout=60)
    assert psutil.wait_procs(children, timeout=10)[1] == []
