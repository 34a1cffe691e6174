"""`flotilla bench fairness`: what one greedy tenant does to the others.

A fleet of one small model is asked by Locust for a modest tenant alone, and then again, with the same arrivals, while
another tenant sends many times as much. Both have the same weight and no limits: what is seen is the fair queue. Each
tenant has a load generator of its own. May not happen in here: deciding who is next (`fleet.admission`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from serving import checkpoints
from serving.bench import arms
from serving.bench.arms import MODEL, Place
from serving.bench.children import Child, Launch, free_port
from serving.bench.client import BadLoad
from serving.bench.figures import percentile
from serving.bench.gateway import Say, keep_logs, machine
from serving.ledger import keys
from serving.ledger.store import Ledger
from serving.settings import Settings

TARGET = 1.5  # the modest tenant's p99 TTFT beside the greedy one, over its own alone
_LEAD_S = 4.0  # that the greedy one is there before
_YIELDS = 10  # niceness of the greedy one's load generator: what sending costs is no part of what is measured
_TENANTS = ("modest", "greedy")
Record = dict[str, Any]  # of one request, as a load test writes it


@dataclass(frozen=True)
class FairnessPlan:
    """What to measure. `rate`: the modest tenant's requests per second; `times`: how many times as many the other
    sends. `seats`: requests that a replica works on at once."""

    state_dir: Path
    rate: float = 4.0
    times: float = 20.0
    duration_s: float = 60.0
    rounds: int = 1
    seats: int = 8
    output_tokens: int = 24


def measure(plan: FairnessPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed, BadLoad."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))
    try:
        say("the fleet starts")
        checkpoint = checkpoints.make("qwen3", plan.state_dir.absolute() / "checkpoints")
        launch, secrets = _launch(Place(folder / "fleet", checkpoint, folder, free_port(), free_port()), plan)
        child = Child("flotilla", launch)
        try:
            child.wait_ready()
            rounds = [_round(launch.url, secrets, folder / str(n), plan, n, say) for n in range(plan.rounds)]
        finally:
            child.stop()
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    told = asdict(plan) | {"state_dir": ""}
    every = {name: [record for found in rounds for record in found[name]] for name in ("alone", "beside", "greedy")}
    return {"machine": machine(), "plan": told, "target": TARGET, **held_together(every),
            "ratios": [held_together(found)["ratio"] for found in rounds]}


def _launch(place: Place, plan: FairnessPlan) -> tuple[Launch, dict[str, str]]:
    """The fleet, and a key of each tenant."""
    limits = {"overload": {"max_in_flight": plan.seats, "max_queue": 64, "max_wait_s": 30}}
    fleet = yaml.safe_load(arms.fleet_file(place.checkpoint, limits))
    fleet["tenants"] |= {tenant: {} for tenant in _TENANTS}
    launch = arms.flotilla(place, yaml.safe_dump(fleet))
    settings = Settings(state_dir=place.folder / "state")
    ledger = Ledger.open(settings.database)
    return launch, {t: keys.create(ledger, t, "bench", settings.pepper(), 0.0)[0] for t in _TENANTS}


def _round(url: str, secrets: dict[str, str], folder: Path, plan: FairnessPlan, number: int,
           say: Say) -> dict[str, list[Record]]:
    """What the modest tenant met alone and beside the other, with the same arrivals, and what the other did."""
    say(f"round {number + 1} of {plan.rounds}: the modest tenant alone")
    with _locust(url, secrets["modest"], folder / "alone", plan, plan.rate, plan.duration_s, number) as alone:
        alone.wait()
    say(f"round {number + 1} of {plan.rounds}: beside {plan.times:g} times as much of another tenant's")
    longer = plan.duration_s + 2 * _LEAD_S
    with _locust(url, secrets["greedy"], folder / "greedy", plan, plan.rate * plan.times, longer, number + 1, _YIELDS):
        time.sleep(_LEAD_S)
        with _locust(url, secrets["modest"], folder / "beside", plan, plan.rate, plan.duration_s, number) as beside:
            beside.wait()
    return {name: read(folder / name / "records.jsonl") for name in ("alone", "beside", "greedy")}


def held_together(records: Mapping[str, list[Record]]) -> dict[str, Any]:
    """What each met, and the modest tenant's p99 beside the other over its p99 alone. Raises: BadLoad."""
    rows = {name: seen(found) for name, found in records.items()}
    return rows | {"ratio": round(rows["beside"]["ttft_ms"]["p99"] / rows["alone"]["ttft_ms"]["p99"], 3)}


def scenario(plan: FairnessPlan, rate: float, duration_s: float, seed: int) -> str:
    """A load test's scenario: single streamed questions at a rate, whatever the answers do."""
    user = {"kind": "chat", "prompt_tokens": {"kind": "lognormal", "median": 60, "sigma": 0.4, "low": 16, "high": 200},
            "output_tokens": {"kind": "uniform", "low": plan.output_tokens // 2, "high": plan.output_tokens * 3 // 2},
            "stream_share": 1.0}
    return yaml.safe_dump({
        "name": "fairness", "duration_s": duration_s, "warmup_s": 2, "seed": seed,
        "arrivals": {"process": "poisson", "rate_per_s": rate}, "request_timeout_s": 60, "exact_output": True,
        "words_per_token": 0.4, "models": {MODEL: {"users": [user]}}})


@contextlib.contextmanager
def _locust(url: str, key: str, folder: Path, plan: FairnessPlan, rate: float, duration_s: float,
            seed: int, nice: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A load generator; when the block is left it is asked to stop, and waited for. `nice`: how far it yields."""
    folder.mkdir(parents=True)
    file = folder / "scenario.yaml"
    file.write_text(scenario(plan, rate, duration_s, seed))
    with open(folder / "locust.log", "ab") as log:
        child = subprocess.Popen(
            ["nice", "-n", str(nice), sys.executable, "-m", "loadtests.run", str(file), "--base-url", url,
             "--out", str(folder), "--quiet"],
            env=os.environ | {"FLOTILLA_API_KEY": key}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait()


def read(records: Path) -> list[Record]:
    """A load test's raw records, its warm-up left out. Raises: BadLoad when there are none."""
    try:
        found = [json.loads(line) for line in records.read_text().splitlines()]
    except OSError:
        found = []
    if found := [record for record in found if not record["warmup"]]:
        return found
    raise BadLoad(f"a load generator left nothing: {_last_words(records.parent)}")


def seen(records: Sequence[Record]) -> dict[str, Any]:
    """What one tenant's requests met. Raises: BadLoad when none was answered."""
    errors = Counter(record["error"]["kind"] for record in records if record["error"] is not None)
    ttft = [record["first_content"] - record["sent"] for record in records
            if record["error"] is None and record["first_content"] is not None]
    if not ttft:
        raise BadLoad(f"none of {len(records)} requests was answered: {dict(errors)}")
    return {"sent": len(records), "answered": len(ttft), "errors": dict(errors),
            "ttft_ms": {f"p{q}": round(percentile(ttft, q) * 1e3, 2) for q in (50, 90, 99)}}


def _last_words(folder: Path) -> str:
    log = folder / "locust.log"
    return log.read_text(errors="replace").strip()[-400:] if log.exists() else "it never began"
