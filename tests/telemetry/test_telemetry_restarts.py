"""Whatever starts again, no counter is ever told below what was told before, nor below the truth."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.capping import Tenants
from serving.telemetry.exporter import Sample, serve

REPOSITORY = Path(__file__).parents[2]
GATEWAY = f"""
import os, sys
pid = int(sys.argv[1])
os.getpid = lambda: pid
sys.path.insert(0, {str(REPOSITORY)!r})
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.meter import PrometheusMeter
meter = PrometheusMeter({{}})
print("up", flush=True)
for tenant in sys.stdin:
    meter.answered(RequestRecord("flo-1", "", tenant.strip(), "k1", "qwen", "chat_completions", 200, "finished", 0.0,
                                 1.0, True, 0.1, Tokens(5, 0, 11)), 1e-6)
    print("counted", flush=True)
"""


class Fleet:
    """Gateways and an exporter over one folder; each can be killed and started again. Every scrape is held against the
    one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "metrics").mkdir()
        self.gateways: dict[str, subprocess.Popen[str]] = {}
        self.tokens = 0.0  # what the ledger says
        self.before: dict[tuple[str, ...], float] = {}
        self.server: ThreadingHTTPServer | None = None

    def exporter(self) -> None:
        """Start it, or start it again."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
        named = Tenants(2, (), self.folder / "named.json")
        self.server = serve("127.0.0.1", 0, str(self.folder / "metrics"), lambda: [
            Sample("flotilla_tokens_total", ("qwen", "a", "completion"), self.tokens)], tuple, tenants=named)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def gateway(self, name: str, pid: int) -> None:
        """Start one, in place of the one of this name, which is killed. `pid`: what it takes for its process id."""
        self.kill(name)
        made = self.gateways[name] = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics")})
        assert made.stdout.readline() == "up\n"

    def kill(self, name: str) -> None:
        """As the machine's memory killer does."""
        if found := self.gateways.pop(name, None):
            found.kill()
            found.communicate()

    def answer(self, name: str, *tenants: str) -> None:
        """It counts a request of each of them."""
        for tenant in tenants:
            self.gateways[name].stdin.write(f"{tenant}\n")
            self.gateways[name].stdin.flush()
            assert self.gateways[name].stdout.readline() == "counted\n"

    def scrape(self) -> dict[str, float]:
        """Sums by name of all counters, after a look that none went back."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.server_port}/metrics", timeout=10) as answer:
            families = [*text_string_to_metric_families(answer.read().decode())]
        now = {(s.name, *map(str, sorted(s.labels.items()))): s.value
               for f in families if f.type in ("counter", "histogram") for s in f.samples}
        for series, value in self.before.items():
            assert now.get(series, -1) >= value, f"{series} was {value} and is {now.get(series)}"
        self.before = now
        sums: dict[str, float] = {}
        for (name, *_), value in now.items():
            if not name.endswith("_bucket"):
                sums[name] = sums.get(name, 0) + value
        return sums


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    for name in list(made.gateways):
        made.kill(name)
    made.server.shutdown()
    made.server.server_close()


def test_counters_stay_at_the_truth_whatever_starts_again(fleet: Fleet) -> None:
    counted, requests = 0, "flotilla_requests_total"

    def answer(name: str, *tenants: str) -> None:
        nonlocal counted
        fleet.answer(name, *tenants)
        counted += len(tenants)
        fleet.tokens += 11 * len(tenants)
        found = fleet.scrape()
        assert found[requests] == found["flotilla_time_to_first_token_seconds_count"] == counted
        assert found["flotilla_tokens_total"] == fleet.tokens

    fleet.exporter()
    fleet.gateway("one", os.getpid())
    fleet.gateway("two", os.getppid())
    answer("one", "a", "b", "c")
    answer("two", "d", "a")
    fleet.gateway("one", os.getpid())  # a container's first process has the same id again
    answer("one", "a", "c")
    fleet.exporter()
    answer("two", "c", "b")
    fleet.kill("two")
    assert fleet.scrape()[requests] == counted
    fleet.exporter()  # while a gateway is gone
    fleet.gateway("two", 1)  # under another id
    answer("two", "d", "d", "b")
    answer("one", "a")
