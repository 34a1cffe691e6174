"""`flotilla bench observing`: what looking at a gateway takes from it.

Gateways with one thing more than the plain one each, side by side on one core before an engine that costs nothing, and
asked in turn, so that a machine that grows slower favours none. What answers is the gateway's own CPU per request and
per chunk, held against the plain one's of the same round: on a noisy machine it says more than requests per second.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.bench import relay
from serving.bench.arms import Place
from serving.bench.children import Child, apply, free_port
from serving.bench.gateway import Say, keep_logs, machine
from serving.bench.metering import interval
from serving.errors import StartFailed
from serving.fleet.observing import LogSpec
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.access import AccessLog

LIMIT = 0.01  # of throughput that looking may take
PLAIN = "plain"
_STREAMS, _CHUNKS, _PAUSE_US = 128, 128, 10_000
_WHOLE_STREAMS = 64


@dataclass(frozen=True)
class Arm:
    """A gateway. `sections`: what its fleet file says more, by the collector's address. `beside`: runs meanwhile."""

    name: str
    says: str
    sections: Callable[[str], dict[str, Any]] = lambda collector: _QUIET
    beside: Callable[[Place], AbstractContextManager[None]] = lambda place: contextlib.nullcontext()


@contextlib.contextmanager
def scraped(place: Place) -> Iterator[None]:
    """The gateway's metrics are scraped again and again by a process of its own."""
    with _python("serving.bench.scraper", str(place.folder / "metrics")):
        yield


@contextlib.contextmanager
def watched(place: Place) -> Iterator[None]:
    """A hundred consoles are open on it, in a process of their own."""
    with _python("serving.bench.consoles", str(place.folder), "100"):
        yield


@contextlib.contextmanager
def _python(*command: str) -> Iterator[None]:
    child = subprocess.Popen([sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        if not child.stdout.readline().startswith(b"ready"):
            raise StartFailed(f"{' '.join(command[:1])} did not start beside the gateway")
        yield
    finally:
        child.terminate()
        child.wait(10)


_QUIET = {"logs": {"access": False}}
ARMS = {arm.name: arm for arm in (
    Arm(PLAIN, "keys, records, metrics, cost; no access log"),
    Arm("traced", "1% of requests are traced",
        lambda collector: _QUIET | {"traces": {"endpoint": f"http://{collector}", "sample_ratio": 0.01}}),
    Arm("logged", "a line in the access log for each request, up to 500 a second", lambda collector: {}),
    Arm("gen_ai", "OpenTelemetry's GenAI names too", lambda collector: _QUIET | {"metrics": {"gen_ai": True}}),
    Arm("scraped", "its metrics are scraped ten times a second", beside=scraped),
    Arm("watched", "a hundred consoles are open, ten of which never read", beside=watched),
)}


def access_log_us(form: str, folder: Path, lines: int = 20_000) -> dict[str, float]:
    """Microseconds of CPU that the access log takes by itself for a request: on the request's way, for its line, which
    a thread writes later, and for a request beyond the limit of lines. Of the whole gateway's time it is too small a
    part to be seen."""
    spec = LogSpec.model_validate({"form": form, "access_per_s": lines})
    records = [RequestRecord(f"flo-{n:032x}", "", "demo", "key_1", "qwen", "chat_completions", 200, "finished",
                             1.7e9 + n / lines_per_s(), 0.9, True, 0.2, Tokens(9, 4, 3)) for n in range(lines)]
    log = AccessLog(spec, folder, 0)
    whole, way = time.process_time_ns(), time.thread_time_ns()
    for record in records:
        log.put(record, 0.000123, "")
    way = time.thread_time_ns() - way
    log.close()
    whole = time.process_time_ns() - whole
    beyond = time.thread_time_ns()
    for record in records:
        log.put(record, 0.000123, "")
    beyond = time.thread_time_ns() - beyond
    return {"request_us": round(way / lines / 1e3, 3), "line_us": round((whole - way) / lines / 1e3, 3),
            "beyond_us": round(beyond / lines / 1e3, 3)}


def lines_per_s() -> int:
    """Lines a second that a gateway writes at most, by default."""
    return LogSpec().access_per_s


@dataclass(frozen=True)
class ObservingPlan:
    """What to measure."""

    names: tuple[str, ...]
    rounds: int
    requests: int
    state_dir: Path


def measure(plan: ObservingPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))
    ours, theirs = relay._cores()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(keep_logs, folder, plan.state_dir)
        fake, engine = relay._fake(folder, theirs)
        stack.callback(engine.stop)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in plan.names}
        children: dict[str, tuple[Arm, Place, Child, relay.Loader]] = {}
        for number, name in enumerate(plan.names):
            say(f"{name}: start")
            place = Place(folder / str(number), Path(), Path(), free_port(), free_port())
            launch = replace(relay.gateway(place, fake, ARMS[name].sections(fake.address)), cores=ours, start_s=90.0)
            child = Child(name, launch)
            stack.callback(child.stop)
            child.wait_ready()
            children[name] = ARMS[name], place, child, relay._loader(launch, theirs)
            apply(children[name][3](1000, False, _WHOLE_STREAMS, 1, 0))
        for turn in range(plan.rounds):
            say(f"round {turn + 1} of {plan.rounds}")
            order = list(children)[turn % len(children):] + list(children)[: turn % len(children)]
            for name in order:
                arm, place, child, load = children[name]
                with arm.beside(place):
                    whole = relay._one(child, load(plan.requests, False, _WHOLE_STREAMS, 1, 0))
                    paced = relay._one(child, load(_STREAMS, True, _STREAMS, _CHUNKS, _PAUSE_US))
                rounds[name].append({"requests": whole["requests_per_core_s"], "chunks": paced["chunks_per_core_s"],
                                     "requests_per_s": whole["requests_per_s"]})
    with tempfile.TemporaryDirectory() as logs:
        own = {form: access_log_us(form, Path(logs) / form) for form in ("human", "json")}
    return {"machine": machine(), "rounds": plan.rounds, "limit": LIMIT, "access_log": own,
            "arms": [_row(name, rounds) for name in plan.names]}


def _row(name: str, rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What an arm does per second of its CPU, and over the plain one in the same rounds."""
    row: dict[str, Any] = {"name": name, "says": ARMS[name].says}
    for part in ("requests", "chunks", "requests_per_s"):
        mine, plain = ([r[part] for r in rounds[of]] for of in (name, PLAIN))
        ratios = [m / p for m, p in zip(mine, plain, strict=True)]
        row[part] = {"median": statistics.median(mine), "ratio": round(statistics.median(ratios), 4),
                     "interval_95": [round(v, 4) for v in interval(ratios)]}
    return row


def share(own: dict[str, float], requests_per_s: float) -> float:
    """The part of one core that the access log takes at so many requests a second."""
    written = min(requests_per_s, lines_per_s())
    return (written * (own["request_us"] + own["line_us"]) + (requests_per_s - written) * own["beyond_us"]) / 1e6


def within(row: dict[str, Any]) -> bool:
    """Whether what an arm takes from streams and from whole answers stays below the limit, by the medians."""
    return all(row[part]["ratio"] >= 1 - LIMIT for part in ("requests", "chunks"))

