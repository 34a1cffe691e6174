"""The one live fleet that all tests of this folder share, and who calls it.

Each file's tests use a tenant of their own, so that what they count is theirs alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import postgres_server
import pytest
from live_calls import Caller
from live_fleet import LiveFleet, fleet_file, no_interrupts, remains
from otlp_collector import Collector
from postgres_server import PostgresServer

from serving import launch

TENANTS = ("loads", "sdk", "clients", "fuzz", "raw", "leaver", "meter", "books", "keyed", "watcher", "crash", "traced",
           "counted", "thrifty", "cut", "boss", "families", "looked-at")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that breaks an engine comes last of those that share the fleet."""
    items.sort(key=lambda item: "test_live_crash" in item.nodeid)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the fleet's spans go."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[LiveFleet]:
    """Two models and two gateways, up. However the session ends, nothing of them may be left."""
    folder = tmp_path_factory.mktemp("live")
    traces = {"endpoint": collector.endpoint, "sample_ratio": 0}  # what callers trace, and nothing else
    metrics = {"gen_ai": True, "push": {"endpoint": collector.endpoint, "every_s": 2}}
    budget = {"limits": {"budget_per_day": {"soft_usd": 1000, "hard_usd": 2000}}}  # has panels
    tenants = dict.fromkeys(TENANTS, {}) | {"watcher": budget}
    live = LiveFleet(folder / "state", fleet_file(folder, ("qwen", "llama"), tenants, ("watcher",), traces=traces,
                                                   metrics=metrics,
                                                   admin={"enabled": True, "port": launch.free_port()}))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with up(live):
            yield live
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def up(live: LiveFleet) -> Iterator[LiveFleet]:
    """Started, and stopped and checked at the end."""
    try:
        live.start()
        yield live
    finally:
        with no_interrupts():
            stop_and_check(live)


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL server for a ledger."""
    if postgres_server.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres_server.running() as server:
        yield server


def stop_and_check(live: LiveFleet) -> None:
    """Stop by the command line and hold it to its word. It need not have come up, and may have been stopped before."""
    held = live.footprint()
    done = live.run("down", timeout_s=120)
    if held is None:
        return
    assert done.returncode == 0, f"down: {done.returncode}\n{done.stderr}\n{live.log_ends()}"
    left = remains(live.state.run, held)
    assert not left, f"left behind after down: {left}"
    assert live.state.state == "stopped"


@pytest.fixture(scope="session")
def callers(fleet: LiveFleet) -> Callable[[str], Caller]:
    """Callers by tenant, each with a key that the command line made."""
    made: dict[str, Caller] = {}

    def caller(tenant: str) -> Caller:
        if tenant not in made:
            made[tenant] = Caller(fleet.port, fleet.new_key(tenant))
        return made[tenant]

    return caller
