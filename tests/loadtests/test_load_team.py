"""A leader and workers that are no children of it, as on a cluster: one run, one report, and all end with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from load_samples import CHAT, scenario_document
from test_load_run import ROOT, start

from loadtests.errors import ArgumentError, UnreachableError
from loadtests.records import read_records
from loadtests.run import main
from loadtests.runinfo import load_run_info
from loadtests.team import Address, Presence, awaited

SECONDS = 150


def free_address() -> str:
    """Two ports beside each other that nobody has."""
    for _ in range(50):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return f"127.0.0.1:{port}"
    raise AssertionError("no two free ports beside each other")


def joined(address: str, key: str = "secret", within_s: float = 50) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "loadtests.join", address, "--within", str(within_s)], cwd=ROOT,
                            env=os.environ | {"FLOTILLA_API_KEY": key}, stderr=subprocess.PIPE, text=True)


def scenario(folder: Path, **changes: object) -> Path:
    models = {name: {"weight": 1, "users": [CHAT]} for name in "ab"}
    document = scenario_document(**({"models": models, "duration_s": 1.0, "arrivals": {
        "process": "poisson", "rate_per_s": 20.0}} | changes))
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_two_workers_elsewhere_do_several_passes_and_end_with_the_run(start_fake, tmp_path: Path) -> None:
    """Workers that are there before the leader, over the three passes of an interference run."""
    fake, address = start_fake("--models", "a", "b"), free_address()
    workers = [joined(address), joined(address)]
    leader = start(scenario(tmp_path), fake.url, tmp_path, "--lead", address, "--workers", "2", "--interference",
                   "--report", "--quiet")
    _, said = leader.communicate(timeout=SECONDS)
    ended = [worker.communicate(timeout=SECONDS)[1] for worker in workers]
    assert leader.returncode == 0, said + "".join(ended)
    assert [worker.returncode for worker in workers] == [0, 0], ended
    records = list(read_records(tmp_path / "records.jsonl"))
    assert len(records) == sum(fake.stats()["requests"].values()) > 10
    facts = load_run_info(tmp_path / "run.json").workers
    assert {fact.index for fact in facts} == {0, 1} and all(fact.requests for fact in facts)
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.integration
def test_a_worker_that_dies_makes_the_run_invalid_and_the_others_end(start_fake, tmp_path: Path) -> None:
    fake, address = start_fake("--models", "a", "b"), free_address()
    workers = [joined(address), joined(address)]
    leader = start(scenario(tmp_path, duration_s=8.0), fake.url, tmp_path, "--lead", address, "--workers", "2")
    deadline = time.monotonic() + SECONDS
    while sum(fake.stats()["requests"].values()) < 5 and time.monotonic() < deadline and leader.poll() is None:
        time.sleep(0.1)
    (locust,) = psutil.Process(workers[0].pid).children()
    locust.kill()
    assert "ended with code -9" in workers[0].communicate(timeout=SECONDS)[1] and workers[0].returncode == 1
    _, said = leader.communicate(timeout=SECONDS)
    assert leader.returncode == 3 and "died; its records since its last batch are missing" in said, said
    assert workers[1].wait(SECONDS) == 0


def test_who_finds_no_leader_says_so() -> None:
    worker = joined(free_address(), within_s=0.1)
    _, said = worker.communicate(timeout=SECONDS)
    assert worker.returncode == UnreachableError.exit_code and "no leader at 127.0.0.1:" in said


def test_a_presence_ends_with_its_run() -> None:
    address, gone = Address.parse(free_address(), "--lead"), threading.Event()
    with Presence(address):
        connection = awaited(address, 5)
        watching = threading.Thread(target=lambda: (connection.recv(1), gone.set()))
        watching.start()
        assert not gone.wait(0.05)
        with pytest.raises(ArgumentError, match="Address already in use"), Presence(address):
            pass
    assert gone.wait(5)
    with pytest.raises(UnreachableError, match="no leader"):
        awaited(address, 0)


@pytest.mark.parametrize("options", [("--lead", "5557", "--workers", "1"), ("--lead", "0.0.0.0:5557"),
                                     ("--workers", "2"),
                                     ("--lead", "0.0.0.0:5557", "--workers", "1", "--processes", "2")])
def test_what_does_not_belong_together_is_said(tmp_path: Path, capsys, options: tuple[str, ...]) -> None:
    code = main([str(scenario(tmp_path)), "--base-url", "http://127.0.0.1:1", "--out", str(tmp_path), *options])
    assert code == ArgumentError.exit_code and "--lead" in capsys.readouterr().err
