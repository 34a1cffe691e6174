"""`flotilla bench relay`: what one core of a server can carry that stands before an engine which costs nothing.

The server under test has a core to itself; fake engine and client share another, so that all CPU that the server
spends is its own. Figures are given per second of the run and per second of the server's CPU: the first cannot exceed
what engine and client can do, the second can be compared between machines of different noise.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.bench import arms
from serving.bench.arms import MODEL, PATH, Place
from serving.bench.book import BookProcess
from serving.bench.children import Child, Launch, apply, clean_environment, free_port, spent
from serving.bench.client import Load
from serving.bench.gateway import Say, keep_logs, machine
from serving.errors import FlotillaError

_STREAMS, _CHUNKS = 64, 256
_PACED, _PAUSE_US = 256, 10_000  # as an engine that gives 100 tokens/s to each of 256 streams
_WHOLE_STREAMS = 64
_MEMORY_STEPS = 10
_PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class RelayPlan:
    """What to measure. `memory_requests`: how many in all while memory is watched; 0: not at all."""

    names: tuple[str, ...]
    rounds: int
    requests: int
    memory_requests: int
    state_dir: Path
    peers: Path


@dataclass(frozen=True)
class Fake:
    """Where the fake engine listens, and the socket of the store that limits are counted in."""

    address: str
    carrier: str
    book: Path


@dataclass(frozen=True)
class Beside:
    """The processes beside the server under test."""

    engine: Child
    book: BookProcess

    def stop(self) -> None:
        """End them."""
        self.engine.stop()
        self.book.stop()


Starter = Callable[[Place, Fake], Launch]


def gateway(place: Place, fake: Fake, sections: dict[str, Any]) -> Launch:
    """The gateway alone, by the carrier. `sections`: more of its fleet file."""
    return _gateway(place, fake, True, sections)


def _gateway(place: Place, fake: Fake, carrier: bool, sections: dict[str, Any] | None = None) -> Launch:
    """The gateway alone, with everything on."""
    seats = {"overload": {"max_in_flight": 10_000}}  # the fake engine takes all that come
    launch = arms.flotilla(place, arms.fleet_file(Path("nowhere"), seats, {"port": place.port}, sections))
    metrics = place.folder / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    command = [*_PYTHON, "serving.bench.relay_gateway", "fleet.yaml", str(fake.book), fake.address,
               *([fake.carrier] * carrier)]
    env = {**launch.env, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "FLOTILLA_STATE_DIR": str(place.folder / "state")}
    return replace(launch, command=tuple(command), env=env, stop_s=10.0)


def _plain(place: Place, fake: Fake) -> Launch:
    """uvicorn and aiohttp without any of our work."""
    return Launch((*_PYTHON, "serving.bench.plain_relay", str(place.port), fake.address), clean_environment(),
                  place.folder, f"http://127.0.0.1:{place.port}", PATH, {}, arms.probe())


STARTERS: dict[str, tuple[str, Starter]] = {
    "flotilla": ("the gateway: keys, limits, records, metrics, cost, access log; carrier to the replica",
                 lambda place, fake: _gateway(place, fake, True)),
    "flotilla-http": ("the same with HTTP to the replica", lambda place, fake: _gateway(place, fake, False)),
    "plain-relay": ("uvicorn and aiohttp, nothing else", _plain),
    "litellm": ("LiteLLM's proxy, one worker, master key, no database",
                lambda place, fake: arms.litellm(replace(place, over=fake.address), workers=1)),
    "vllm-router": ("vLLM's Rust router", lambda place, fake: arms.vllm_router(replace(place, over=fake.address))),
}


def chosen(names: list[str]) -> list[str]:
    """These servers, or all, in their usual order. Raises: ConfigError."""
    arms.known(names, STARTERS)
    return [name for name in STARTERS if not names or name in names]


def measure(plan: RelayPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed when the fake engine does not start."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))
    ours, theirs = _cores()
    rows, failed = [], []
    try:
        fake, beside = _fake(folder, theirs)
        try:
            for number, name in enumerate(plan.names):
                say(f"{name}: start")
                place = Place(folder / str(number), Path(), plan.peers.absolute(), free_port(), free_port())
                try:
                    rows.append(_arm(name, place, fake, plan, (ours, theirs), say))
                except (FlotillaError, OSError) as error:
                    failed.append({"name": name, "reason": str(error)})
        finally:
            beside.stop()
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    load = {"streams": _STREAMS, "chunks": _CHUNKS, "paced_streams": _PACED, "paced_us": _PAUSE_US,
            "rounds": plan.rounds, "whole_requests": plan.requests, "cores": [list(ours), list(theirs)]}
    return {"machine": machine(), "load": load, "arms": rows, "failed": failed}


def _cores() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The server's core and the rest; on one core all share it."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0],), tuple(mine[1:]) or (mine[0],)


def _fake(folder: Path, cores: tuple[int, ...]) -> tuple[Fake, Beside]:
    http, carrier, book = free_port(), free_port(), folder / "book.sock"
    launch = Launch((*_PYTHON, "serving.bench.fake_upstream", str(http), str(carrier)), clean_environment(),
                    folder / "fake", f"http://127.0.0.1:{http}", PATH, {}, arms.probe(), start_s=20.0, cores=cores)
    child = Child("fake-engine", launch)
    try:
        child.wait_ready()
        counters = BookProcess(book, cores)
    except BaseException:
        child.stop()
        raise
    return Fake(f"127.0.0.1:{http}", f"127.0.0.1:{carrier}", book), Beside(child, counters)


def _arm(name: str, place: Place, fake: Fake, plan: RelayPlan, cores: tuple[tuple[int, ...], tuple[int, ...]],
         say: Say) -> dict[str, Any]:
    says, starter = STARTERS[name]
    launch = replace(starter(place, fake), cores=cores[0], start_s=90.0)
    child = Child(name, launch)
    try:
        child.wait_ready()
        load = _loader(launch, cores[1])
        apply(load(1000, False, _WHOLE_STREAMS, 1, 0))
        row: dict[str, Any] = {"name": name, "says": says}
        rounds: dict[str, list[dict[str, float]]] = {"whole": [], "stream": [], "paced": []}
        for number in range(plan.rounds):
            say(f"{name}: round {number + 1} of {plan.rounds}")
            rounds["whole"].append(_one(child, load(plan.requests, False, _WHOLE_STREAMS, 1, 0)))
            rounds["stream"].append(_one(child, load(_STREAMS * 8, True, _STREAMS, _CHUNKS, 0)))
            rounds["paced"].append(_one(child, load(_PACED, True, _PACED, _CHUNKS, _PAUSE_US)))
        row["requests"] = {k: _middle(rounds["whole"], k) for k in ("requests_per_s", "requests_per_core_s")}
        row["chunks"] = {k: _middle(rounds["stream"], k) for k in ("chunks_per_s", "chunks_per_core_s")}
        row["paced_chunks"] = {k: _middle(rounds["paced"], k) for k in ("chunks_per_s", "chunks_per_core_s")}
        row["spread"] = {part: {k: [min(r[k] for r in found), max(r[k] for r in found)] for k in found[0]}
                         for part, found in rounds.items()}
        if plan.memory_requests and name.startswith("flotilla"):
            row["memory"] = _memory(child, load, plan.memory_requests, lambda note: say(f"{name}: {note}"))
        return row
    finally:
        child.stop()


Loader = Callable[[int, bool, int, int, int], Load]


def _loader(launch: Launch, cores: tuple[int, ...]) -> Loader:
    host, _, port = launch.url.removeprefix("http://").partition(":")

    def load(requests: int, stream: bool, streams: int, chunks: int, pause_us: int) -> Load:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me how the harbour looks at night."}],
                "max_tokens": chunks, "seed": pause_us}
        body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return Load(host, int(port), PATH, dict(launch.headers), [json.dumps(body)], [[0]] * requests, streams, chunks,
                    cores=list(cores))

    return load


def _one(child: Child, load: Load) -> dict[str, float]:
    before = child.cpu()
    seen = apply(load)
    cpu_s = sum(spent(before, child.cpu()).values())
    requests, chunks = len(seen.took_s), sum(seen.events)
    return {"requests_per_s": round(requests / seen.wall_s), "requests_per_core_s": round(requests / cpu_s),
            "chunks_per_s": round(chunks / seen.wall_s), "chunks_per_core_s": round(chunks / cpu_s),
            "core_busy": round(cpu_s / seen.wall_s, 2)}


def _memory(child: Child, load: Loader, requests: int, say: Say) -> dict[str, Any]:
    """Memory after each tenth of so many requests, every tenth of them a stream."""
    found = [child.rss()]
    for step in range(_MEMORY_STEPS):
        say(f"memory, {step * requests // _MEMORY_STEPS} of {requests} requests")
        each = requests // _MEMORY_STEPS
        apply(load(each - each // 10, False, _WHOLE_STREAMS, 1, 0))
        apply(load(each // 10, True, _STREAMS, 8, 0))
        found.append(child.rss())
    mib = [round(f / 2**20, 1) for f in found]
    half = len(mib) // 2
    return {"requests": requests, "rss_mib": mib, "second_half_mib": round(mib[-1] - mib[half], 1)}


def _middle(rounds: list[dict[str, float]], key: str) -> float:
    return statistics.median(r[key] for r in rounds)
