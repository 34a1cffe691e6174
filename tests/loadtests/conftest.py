"""Fixtures: the fake endpoint in a process of its own, and small ways to make scenarios and records."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_openai.py")


@dataclass(frozen=True)
class FakeEndpoint:
    url: str
    process: subprocess.Popen[str]

    def stats(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/stats") as response:
            return json.load(response)


@pytest.fixture(scope="session")
def start_fake() -> Iterator[Callable[..., FakeEndpoint]]:
    """Starts fakes with the given command-line knobs; all end with the session."""
    processes: list[subprocess.Popen[str]] = []

    def start(*knobs: str) -> FakeEndpoint:
        process = subprocess.Popen([sys.executable, str(FAKE), *knobs], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return FakeEndpoint(f"http://127.0.0.1:{int(process.stdout.readline())}", process)

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def fake(start_fake) -> FakeEndpoint:
    """A fake for single requests: TTFT 50 ms, one token each 10 ms."""
    return start_fake()
