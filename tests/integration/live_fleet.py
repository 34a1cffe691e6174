"""A real fleet for the tests: started, asked and stopped by the real command line, in a state directory of its own.

May not happen in here: assertions about what the fleet answers; those stand in the tests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving import launch, processes, runstate
from serving.engines import caches
from serving.ledger import sums
from serving.ledger.store import Ledger
from serving.runstate import RunState

ROOT = Path(__file__).resolve().parents[2]
LAPTOP = ROOT / "deployments" / "fleets" / "laptop.yaml"
T = TypeVar("T")


def eventually(read: Callable[[], T], what: str, within_s: float = 10.0, every_s: float = 0.05) -> T:
    """The first true value of `read`. Raises: AssertionError that shows the last one when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = read()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within_s:g} s; last seen: {found!r}")
        time.sleep(every_s)


def fleet_file(folder: Path, models: tuple[str, ...], tenants: Iterable[str] | Mapping[str, Any],
               promised: Iterable[str] = (), **sections: Any) -> Path:
    """The laptop's fleet file with only these models and tenants, bodies up to 1 MiB, and SLOs that a busy machine
    keeps: what is tested is that the fleet is right, not that the machine is fast. `tenants`: names, or with what the
    file says of them; `promised`: those with promises of their own. `sections`: more of the file.
    """
    fleet = yaml.safe_load(LAPTOP.read_text())
    slow: dict[str, Any] = {"ttft_ms": 30_000, "tpot_ms": 2_000}
    slow["tenants"] = {name: {"ttft_ms": 25_000} for name in promised}
    fleet |= {
        "name": "live",
        "prices": str(LAPTOP.parent / fleet["prices"]),
        "models": {name: fleet["models"][name] | {"slo": dict(slow)} for name in models},
        "tenants": dict(tenants) if isinstance(tenants, Mapping) else {name: {} for name in tenants},
        "gateway": {"max_body_mib": 1},
        **sections,
    }
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    return file


@dataclass(frozen=True)
class Footprint:
    """What a tree of processes holds at one moment: itself, and the TCP ports it listens on."""

    processes: tuple[psutil.Process, ...]
    ports: frozenset[int]

    @classmethod
    def of(cls, root: psutil.Process) -> Footprint:
        """The footprint of a process and all its descendants. Taken by descent, not by Flotilla's own marks."""
        found = (root, *root.children(recursive=True))
        return cls(found, frozenset().union(*map(listening, found)))

    def left(self) -> dict[str, list[Any]]:
        """What is still there: processes by name, and ports on which someone listens. Empty when all is gone."""
        living = [f"{p.pid} {_name(p)}" for p in self.processes if _living(p)]
        taken = [port for port in sorted(self.ports) if _listens(port)]
        return {k: v for k, v in (("processes", living), ("ports", taken)) if v}


def listening(process: psutil.Process) -> frozenset[int]:
    """TCP ports on which a process listens; none when it is gone."""
    try:
        return frozenset(c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
    except psutil.Error:
        return frozenset()


def owned(run: str) -> list[str]:
    """Processes that carry a run's mark or hold files of its folder, whoever their parent is."""
    marks = processes.Run(run, str(launch.work_dir(run)))
    found = [p for p in psutil.process_iter() if marks.owns(p) and _living(p)]
    return [f"{p.pid} {_name(p)}" for p in found if p.pid != os.getpid()]


def remains(run: str, before: Footprint) -> dict[str, Any]:
    """Everything that a run has left on the machine; empty when there is nothing."""
    folder = launch.work_dir(run)
    more = {"owned": owned(run), "folder": str(folder) if folder.exists() else ""}
    return before.left() | {k: v for k, v in more.items() if v}


def _living(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class LiveFleet:
    """One fleet of this machine, seen from outside: its command line, its ports, its ledger."""

    state_dir: Path
    file: Path
    port: int = field(default_factory=launch.free_port)
    metrics_port: int = field(default_factory=launch.free_port)
    database_url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: nothing of Flotilla's but the state directory. All fleets of the tests share
        what engines compile."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOTILLA_")}
        kept |= caches.environment(Path.home() / ".cache" / "flotilla-tests", os.environ)
        return kept | {"FLOTILLA_STATE_DIR": str(self.state_dir), "FLOTILLA_DATABASE_URL": self.database_url}

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def admin_port(self) -> int:
        """Where its admin API listens, as its file says."""
        return int(yaml.safe_load(self.file.read_text())["admin"]["port"])

    @property
    def ledger(self) -> Ledger:
        """Its ledger, opened anew."""
        return Ledger.open(self.database_url or self.state_dir / "ledger.db")

    @property
    def state(self) -> RunState:
        """What its state directory says of the run."""
        found = runstate.read(self.state_dir)
        assert found is not None, f"no run.json in {self.state_dir}"
        return found

    def command(self, *arguments: str) -> list[str]:
        """A command line of Flotilla."""
        return [sys.executable, "-m", "serving", *arguments]

    def up_command(self, *more: str) -> list[str]:
        """The command line that starts it."""
        return self.command("up", str(self.file), "--port", str(self.port), "--metrics-port", str(self.metrics_port),
                            *more)

    def run(self, *arguments: str, timeout_s: float = 150.0) -> subprocess.CompletedProcess[str]:
        """Run a command of Flotilla and return what it said, whatever its exit code."""
        return subprocess.run(self.command(*arguments), cwd=ROOT, env=self.environment, text=True, timeout=timeout_s,
                              capture_output=True, stdin=subprocess.DEVNULL)

    def say(self, *arguments: str) -> str:
        """Like `run`, but the command must succeed. Returns its standard output."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"flotilla {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Bring it up, detached, with two gateway processes. Raises: RuntimeError with the ends of the logs."""
        up = subprocess.Popen(self.up_command("--detach", "--gateways", "2"), cwd=ROOT, env=self.environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            said, _ = up.communicate(timeout=600)
        except BaseException:
            up.send_signal(signal.SIGINT)  # it stops what it has started; killed, it could not
            up.wait()
            raise
        if up.returncode != 0:
            raise RuntimeError(f"the fleet did not start ({up.returncode}):\n{said}\n{self.log_ends()}")

    def footprint(self) -> Footprint | None:
        """The guard's tree as it is now; None when there is no guard."""
        state = runstate.read(self.state_dir)
        if state is None or not state.running:
            return None
        return Footprint.of(psutil.Process(state.guard_pid))

    def log_ends(self, lines: int = 15) -> str:
        """The last lines of each of the last run's logs."""
        parts, state = [], runstate.read(self.state_dir)
        for log in sorted(Path(state.logs).rglob("*")) if state else []:
            if log.is_file() and log.stat().st_size:
                tail = log.read_text(errors="replace").splitlines()[-lines:]
                parts.append("\n".join([f"--- {log.relative_to(self.state_dir)}", *tail]))
        return "\n".join(parts)

    def new_key(self, tenant: str, name: str = "test", *more: str) -> str:
        """A new key's text, made by the command line. `more`: further options."""
        return str(json.loads(self.say("keys", "create", "--tenant", tenant, "--name", name, *more, str(self.file),
                                       "--json"))["key"])

    def metrics(self) -> Samples:
        """The exporter's samples now."""
        return Samples.read(f"http://127.0.0.1:{self.metrics_port}/metrics")

    def replicas(self, model: str) -> list[str]:
        """Addresses (host:port) of a model's replicas, as the exporter tells them to Prometheus."""
        targets = json.loads(_get(f"http://127.0.0.1:{self.metrics_port}/targets"))
        return [address for t in targets if t["labels"]["model"] == model for address in t["targets"]]

    def running_in_engine(self, model: str) -> float:
        """Requests that the engines of a model work on or hold in their queue now, by vLLM's own metrics."""
        found = [Samples.read(f"http://{address}/metrics") for address in self.replicas(model)]
        return sum(s.sum("vllm:num_requests_running") + s.sum("vllm:num_requests_waiting") for s in found)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the ledger."""
        with self.ledger.snapshot() as db:
            return [tuple(row) for row in db.exec_driver_sql(query, values)]

    def row_count(self, tenant: str) -> int:
        """How many requests of a tenant the gateways have written down."""
        return int(self.rows("SELECT COUNT(*) FROM requests WHERE tenant = ?", tenant)[0][0])

    def settled(self, within_s: float = 15.0) -> sums.Totals:
        """The ledger's totals once each replica has written after now and nothing runs any more."""
        since = time.time()

        def read() -> sums.Totals | None:
            found = sums.totals(self.ledger, time.time())
            written = all(r.record.seen_at > since for r in found.replicas if r.alive)
            return found if written and not any(found.running.values()) else None

        return eventually(read, "the ledger settles", within_s, 0.1)


@dataclass(frozen=True)
class Samples:
    """Samples of one scrape."""

    found: tuple[tuple[str, dict[str, str], float], ...]

    @classmethod
    def read(cls, url: str) -> Samples:
        """Scrape a page in Prometheus' text form."""
        families = text_string_to_metric_families(_get(url))
        return cls(tuple((s.name, s.labels, s.value) for family in families for s in family.samples))

    def of(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of the samples of this name that carry these labels."""
        return [(has, value) for found, has, value in self.found
                if found == name and all(has.get(k) == v for k, v in labels.items())]

    def sum(self, name: str, **labels: str) -> float:
        """Their sum; 0 when there are none."""
        return sum(value for _, value in self.of(name, **labels))


def _get(url: str) -> str:
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with plain.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def nano(cost: float) -> int:
    """A cost in USD, as an answer names it, in nano-dollars."""
    return round(cost * 1e9)


def engine_core(fleet: LiveFleet, model: str) -> psutil.Process:
    """The engine's own process of a model's one replica: a child of the process that listens at its address."""
    (address,) = fleet.replicas(model)
    port = int(address.rpartition(":")[2])
    found = fleet.footprint()
    assert found is not None
    owner = next(p for p in found.processes if port in listening(p))
    return next(p for p in owner.children(recursive=True) if _is_core(p))


def _is_core(process: psutil.Process) -> bool:
    return bool(re.search("EngineCore", " ".join(process.cmdline()) + process.name()))


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait outside while the fleet is being stopped."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
