"""A real Prometheus of the tests' own: on a free loopback port, with a folder for its data, gone when they end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def program(name: str = "prometheus") -> str:
    """The path of one of its programs. Only where no one promised it, a missing one skips the test."""
    found = shutil.which(name)
    if found is None:
        word = f"{name} is not installed (Debian: apt install prometheus)"
        pytest.fail(word) if os.environ.get("CI") else pytest.skip(word)
    return found


class Prometheus:
    """A running one, asked in PromQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> dict[str, float]:
        """An instant query's values by their label `model` (empty where they have none)."""
        return {labels.get("model", ""): value for labels, value in self.series(query)}

    def series(self, query: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """An instant query's series: labels and value. `at`: Unix seconds, by default now."""
        found = self._get("query", query=query, **({} if at is None else {"time": str(at)}))
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def exemplars(self, query: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """The exemplars of a selector's series in the last minutes: the series' labels, and the exemplar."""
        now = time.time()
        found = self._get("query_exemplars", query=query, start=str(now - 300), end=str(now + 10))
        return [(one["seriesLabels"], exemplar) for one in found for exemplar in one["exemplars"]]

    def healthy(self) -> dict[str, str]:
        """Health of every target by its address."""
        found = self._get("targets")["activeTargets"]
        return {target["labels"]["instance"]: target["health"] for target in found}

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with _open(f"{self.url}/-/ready"):
                return True
        except OSError:
            return False

    def _get(self, what: str, **asked: str) -> Any:
        with _open(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}") as answer:
            return json.load(answer)["data"]


def _open(url: str) -> Any:
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10)


@contextlib.contextmanager
def running(folder: Path, *flags: str) -> Iterator[Prometheus]:
    """One on `folder`/prometheus.yml for as long as the block lasts. `flags`: more of its command line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program(), f"--config.file={folder / 'prometheus.yml'}",
             f"--web.listen-address={address}", f"--storage.tsdb.path={folder / 'data'}", *flags],
            stdout=log, stderr=log)
    try:
        made, deadline = Prometheus(f"http://{address}"), time.monotonic() + 30
        while not made.ready():
            assert time.monotonic() < deadline and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait(20)
