"""Exemplars: each bucket's newest trace, over all gateways, and in the real Prometheus."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import prometheus_server
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.samples import Exemplar

from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry import exemplars
from serving.telemetry.exporter import serve
from serving.telemetry.meter import PrometheusMeter

REPOSITORY = Path(__file__).parents[2]
SLOW, FAST, OTHER = "a" * 32, "b" * 32, "c" * 32
GATEWAY = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.meter import PrometheusMeter
meter = PrometheusMeter({{}})
for line in sys.stdin:
    tenant, ttft_s, trace_id = line.split()
    meter.answered(RequestRecord("flo-1", "", tenant, "k1", "qwen", "chat_completions", 200, "finished", 0.0, 30.0,
                                 True, float(ttft_s), Tokens(5, 0, 11)), 1e-6, trace_id.strip("-"))
    print("counted", flush=True)
"""
TTFT = "flotilla_time_to_first_token_seconds_bucket"


class Gateways:
    """Gateway processes that count what they are told, into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        made = subprocess.Popen([sys.executable, "-c", GATEWAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True, env={"PROMETHEUS_MULTIPROC_DIR": str(self.folder)})
        self.all.append(made)
        return made

    @staticmethod
    def answered(gateway: subprocess.Popen[str], ttft_s: float, trace_id: str, tenant: str = "demo") -> None:
        gateway.stdin.write(f"{tenant} {ttft_s} {trace_id or '-'}\n")
        gateway.stdin.flush()
        assert gateway.stdout.readline() == "counted\n"

    def traces(self) -> dict[str, tuple[str, float]]:
        """By upper bound of a bucket of time to first token: the trace, and its value."""
        return {dict(labels)["le"]: (e.labels["trace_id"], e.value)
                for (name, labels), e in exemplars.read(self.folder).items() if name == TTFT}


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    folder = tmp_path / "metrics"
    folder.mkdir()
    made = Gateways(folder)
    yield made
    for gateway in made.all:
        gateway.kill()
        gateway.communicate()


def test_each_bucket_keeps_its_newest_trace_over_all_gateways_and_outlives_them(gateways: Gateways) -> None:
    one, two = gateways.start(), gateways.start()
    gateways.answered(one, 9.0, SLOW)
    gateways.answered(two, 0.02, OTHER)
    gateways.answered(one, 0.021, FAST)
    gateways.answered(two, 0.022, "")  # not traced
    assert gateways.traces() == {"10.0": (SLOW, 9.0), "0.025": (FAST, 0.021)}
    one.kill()
    one.wait()
    assert gateways.traces()["10.0"] == (SLOW, 9.0)


def test_the_real_prometheus_finds_the_slow_requests_trace(gateways: Gateways, tmp_path: Path) -> None:
    server = serve("127.0.0.1", 0, str(gateways.folder), lambda: (), lambda: ())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    gateway = gateways.start()
    gateways.answered(gateway, 9.0, SLOW)
    gateways.answered(gateway, 0.02, FAST)
    config = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [
        {"job_name": "flotilla", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    try:
        with prometheus_server.running(tmp_path, "--enable-feature=exemplar-storage") as prometheus:
            deadline = time.monotonic() + 20
            while not (found := prometheus.exemplars(f'{TTFT}{{le="10.0"}}')):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            (labels, exemplar), = found
            assert (labels["model"], labels["tenant"]) == ("qwen", "demo")
            assert exemplar["labels"] == {"trace_id": SLOW} and float(exemplar["value"]) == 9.0
            assert abs(exemplar["timestamp"] - time.time()) < 60
            said = (tmp_path / "log").read_text()
            assert "rror" not in said.split("Server is ready")[1], "it took every line as it was told"
    finally:
        server.shutdown()
        server.server_close()


def test_tenants_that_are_counted_together_show_the_newest_trace_of_them(gateways: Gateways) -> None:
    from prometheus_client.multiprocess import MultiProcessCollector

    from serving.telemetry.capping import Capped, Tenants

    gateway = gateways.start()
    for tenant, trace in (("first", FAST), ("second", SLOW), ("third", OTHER)):
        gateways.answered(gateway, 0.02, trace, tenant)
    told = exemplars.Exemplified(MultiProcessCollector(None, path=str(gateways.folder)).collect, gateways.folder)
    shown = {(s.labels["tenant"], s.exemplar.labels["trace_id"], s.value)
             for family in Capped(told.collect, Tenants(1, ["first"])).collect() for s in family.samples
             if s.name == TTFT and s.exemplar}
    assert shown == {("first", FAST, 1), ("other", OTHER, 2)}


def test_without_several_processes_the_same_is_told_by_the_registry() -> None:
    registry = CollectorRegistry()
    record = RequestRecord("flo-1", "", "demo", "k1", "qwen", "chat_completions", 200, "finished", 0.0, 30.0, True, 9.0,
                           Tokens(5, 0, 11))
    PrometheusMeter({}, registry).answered(record, None, SLOW)
    assert f'# {{trace_id="{SLOW}"}} 9.0' in generate_latest(registry).decode()


class Owner:
    """Who has a slot."""

    slot: int | None = None


def test_slots_are_bounded_and_taken_over_from_the_oldest_owner(tmp_path: Path) -> None:
    slots, owners = exemplars.Slots(tmp_path, 7, slots=2), [Owner(), Owner(), Owner()]
    for number, owner in enumerate(owners):
        owner.slot = slots.own(owner)
        slots.write(owner.slot, json.dumps(["name", {"le": str(number)}, {"trace_id": SLOW}, 1.0, 5.0]).encode())
    assert [owner.slot for owner in owners] == [None, 1, 0]
    assert {dict(labels)["le"] for _, labels in exemplars.read(tmp_path)} == {"1", "2"}
    assert (tmp_path / "exemplars_7.slots").stat().st_size == 1024


def test_what_is_half_written_or_too_long_is_left_out(tmp_path: Path) -> None:
    slots = exemplars.Slots(tmp_path, 7, slots=4)
    for number in range(3):
        slots.own(Owner())
        slots.write(number, json.dumps(["name", {"le": str(number)}, {"trace_id": SLOW}, 1.0, 5.0]).encode())
    slots.write(1, b"x" * 600)
    slots._map[512 + 20] ^= 1
    assert {dict(labels)["le"] for _, labels in exemplars.read(tmp_path)} == {"0", "2"}


def test_of_two_the_newer_one_is_kept() -> None:
    old, new = Exemplar({}, 1.0, 5.0), Exemplar({}, 2.0, 6.0)
    assert exemplars.newer(old, new) is exemplars.newer(new, old) is new
    assert exemplars.newer(None, old) is old and exemplars.newer(None, None) is None
