"""Locust's web interface with a scenario in it: it comes up, and its tab shows what the records say."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request

import chromium
import psutil
import pytest
from load_samples import CHAT, failed, make_record
from test_load_browser import browser
from test_load_run import start, write_scenario

from loadtests.liveview import LiveView
from loadtests.records import read_records
from loadtests.runinfo import load_run_info
from loadtests.scenario import Slo

__all__ = ["browser"]  # a fixture

SLO = {"ttft_ms": 60_000.0, "tpot_ms": 60_000.0}
MODELS = {"fast": {"weight": 2, "users": [CHAT], "slo": SLO}, "other": {"users": [CHAT]}}


def test_rows_are_what_the_records_say():
    view = LiveView({"a": Slo(ttft_ms=200.0, tpot_ms=50.0), "b": None})
    records = [make_record(cost_usd=0.002), make_record(cost_usd=0.004, first_content=1.19), failed(),
               make_record(model="b", turn=2, ended=4.0, cost_usd=None)]
    view.take([record.model_dump_json() for record in records])
    one, other, whole = view.rows()
    assert (one["model"], one["requests"], one["failed"]) == ("a", 3, 1)
    assert (one["in_slo"], one["cost"]) == ("66.7%", "$0.00300")
    assert one["ttft_p50"] == pytest.approx(100, rel=0.01) and one["due_p99"] == pytest.approx(200, rel=0.01)
    assert one["late_p99"] == pytest.approx(10, rel=0.01) and one["tokens_per_s"] == 22 / 4
    assert (other["in_slo"], other["cost"], other["late_p99"]) == ("–", "–", "–")
    assert (whole["model"], whole["requests"], whole["in_slo"]) == ("all", 4, "66.7%")
    view.clear()
    assert view.rows() == []


def shown(port: int) -> list[dict]:
    """The rows that the interface asks for; [] while it's not up or has none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=5) as answer:
            (tab,) = json.load(answer)["extended_stats"]
    except (OSError, urllib.error.URLError):
        return []
    assert tab["key"] == "models"
    return tab["data"]


@pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")
def test_the_interface_shows_the_models_and_stays_after_the_run(start_fake, browser, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fake = start_fake("--ttft-s", "0.02", "--itl-s", "0.002")
    scenario = write_scenario(tmp_path, models=MODELS, duration_s=3.0)
    process = start(scenario, fake.url, tmp_path / "out", "--web", f"127.0.0.1:{port}", "--quiet")
    try:
        deadline = time.monotonic() + 60
        while len(shown(port)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        browser.open(f"http://127.0.0.1:{port}/", 1280, dark=False)
        tab = "[...document.querySelectorAll('[role=tab]')].find(e => /^models$/i.test(e.innerText))"
        table = "(document.querySelector('table')?.innerText ?? '')"
        browser.until(f"{tab} && ({tab}.click(), true)", 30)
        words = ("TTFT from scheduled", "fast", "all")
        browser.until(" && ".join(f"{table}.includes('{word}')" for word in words), 30)
        assert browser.loud() == []
        # The figures are those of the records, and stay to be looked at.
        browser.until("[...document.querySelectorAll('*')].some(e => /^(stopped|ready)$/i.test(e.innerText))", 30)
        rows = {row["model"]: row for row in shown(port)}
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert psutil.wait_procs(children, timeout=5)[1] == []
    # The run was over: Ctrl-C only closed the interface. 3: this machine was too busy for it.
    assert not load_run_info(tmp_path / "out" / "run.json").interrupted and process.returncode in (0, 3)
    records = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert rows["all"]["requests"] == len(records) > 20
    assert rows["fast"]["requests"] == sum(record.model == "fast" for record in records)
    assert rows["fast"]["in_slo"] == "100.0%" and rows["other"]["in_slo"] == "–" and rows["all"]["cost"] != "–"
