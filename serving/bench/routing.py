"""`flotilla bench routing`: what the choice of the replica is worth to the engines' prefix caches.

The same conversations, from one seed, go to a fleet of two replicas under each routing policy. How much of the prompts
the caches held is read twice: from the engines' own counters and from the answers' usage.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import statistics
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving import checkpoints
from serving.bench import arms
from serving.bench.arms import MODEL, PATH, Place
from serving.bench.children import Child, apply, free_port
from serving.bench.client import BadLoad, Load
from serving.bench.figures import percentile
from serving.bench.gateway import Say, keep_logs, machine
from serving.errors import ConfigError

POLICIES = ("prefix", "least_loaded", "round_robin")
_REPLICAS = 2
_TOKENS = 16
_WORDS = ("harbour lantern copper meadow violin timber orchard glacier saddle compass feather granite walnut thunder "
          "pepper marble cinder willow anchor velvet").split()


@dataclass(frozen=True)
class Talks:
    """The conversations: every one of a system prompt's group begins alike, each has its own first question."""

    sessions: int = 48
    turns: int = 6
    groups: int = 4
    system_words: int = 60
    turn_words: int = 25
    at_once: int = 12


@dataclass(frozen=True)
class RoutingPlan:
    """What to measure."""

    policies: tuple[str, ...]
    rounds: int
    seed: int
    state_dir: Path
    talks: Talks = Talks()


@dataclass(frozen=True)
class Counters:
    """One engine's own counts."""

    queries: float
    hits: float
    requests: float


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """These policies, or all, in their usual order. Raises: ConfigError."""
    for name in names:
        if name not in POLICIES:
            raise ConfigError(f"there is no routing {name!r}; there are: {', '.join(POLICIES)}")
    return tuple(p for p in POLICIES if not names or p in names)


def bodies(talks: Talks, seed: int) -> tuple[list[str], list[list[int]]]:
    """Requests as JSON, and which of them follow each other. What the model says is made up, so that every policy
    gets the same prompts."""
    chance = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(chance.choices(_WORDS, k=count))

    systems = [words(talks.system_words) for _ in range(talks.groups)]
    texts: list[str] = []
    scripts: list[list[int]] = []
    for session in range(talks.sessions):
        messages = [{"role": "system", "content": systems[session % talks.groups]}]
        script = []
        for _ in range(talks.turns):
            messages.append({"role": "user", "content": words(talks.turn_words)})
            script.append(len(texts))
            texts.append(json.dumps({"model": MODEL, "messages": messages, "max_tokens": _TOKENS, "ignore_eos": True,
                                     "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}))
            messages = [*messages, {"role": "assistant", "content": words(talks.turn_words)}]
        scripts.append(script)
    return texts, scripts


def counters(text: str) -> Counters:
    """From an engine's /metrics. Raises: BadLoad when they are not there."""

    def total(name: str) -> float:
        found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        if not found:
            raise BadLoad(f"the engine's metrics have no {name}")
        return sum(map(float, found))

    return Counters(total("vllm:prefix_cache_queries_total"), total("vllm:prefix_cache_hits_total"),
                    total("vllm:request_success_total"))


def measure(plan: RoutingPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report. Raises: StartFailed, BadLoad."""
    folder = Path(tempfile.mkdtemp(prefix="flo-"))
    found: dict[str, list[dict[str, Any]]] = {policy: [] for policy in plan.policies}
    try:
        checkpoint = checkpoints.make("qwen3", plan.state_dir.absolute() / "checkpoints")
        for number in range(plan.rounds):
            order = plan.policies if number % 2 == 0 else plan.policies[::-1]
            for policy in order:
                say(f"round {number + 1} of {plan.rounds}: {policy}")
                place = Place(folder / f"{number}{policy[0]}", checkpoint, folder, free_port(), free_port())
                found[policy].append(_fleet(policy, place, plan, number))
    finally:
        keep_logs(folder, plan.state_dir)
        shutil.rmtree(folder, ignore_errors=True)
    return {"machine": machine(), "talks": asdict(plan.talks), "seed": plan.seed, "replicas": _REPLICAS,
            "policies": [_row(policy, runs) for policy, runs in found.items()]}


def _fleet(policy: str, place: Place, plan: RoutingPlan, number: int) -> dict[str, Any]:
    """One run against a fresh fleet, whose caches are empty."""
    replicas = {"min": _REPLICAS, "max": _REPLICAS}
    fleet = arms.fleet_file(place.checkpoint, {"replicas": replicas, "routing": policy})
    launch = arms.flotilla(place, fleet)
    child = Child(f"flotilla-{policy}", launch)
    try:
        child.wait_ready()
        before = _read(place)
        texts, scripts = bodies(plan.talks, plan.seed + number)
        host, _, port = launch.url.removeprefix("http://").partition(":")
        seen = apply(Load(host, int(port), PATH, dict(launch.headers), texts, scripts, plan.talks.at_once, _TOKENS))
        after = _read(place)
    finally:
        child.stop()
    served = {a: after[a].requests - before[a].requests for a in after}
    queries = sum(after[a].queries - before[a].queries for a in after)
    hits = sum(after[a].hits - before[a].hits for a in after)
    return {"hit_rate": hits / queries, "cached_share": sum(seen.cached) / sum(seen.prompt),
            "prompt_tokens": sum(seen.prompt), "ttft_p50_ms": percentile(seen.ttft_s, 50) * 1e3,
            "busiest_share": max(served.values()) / sum(served.values()), "wall_s": seen.wall_s}


def _read(place: Place) -> dict[str, Counters]:
    """Every replica's counters by its address. Raises: BadLoad."""
    with urllib.request.urlopen(f"http://127.0.0.1:{place.port_2}/targets", timeout=10) as answer:
        addresses = [a for target in json.loads(answer.read()) for a in target["targets"]]
    if len(addresses) != _REPLICAS:
        raise BadLoad(f"the fleet has {len(addresses)} replicas that take requests, not {_REPLICAS}")
    found = {}
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            found[address] = counters(answer.read().decode())
    return found


def _row(policy: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    middle = {k: round(statistics.median(r[k] for r in runs), 4) for k in runs[0]}
    rates = [r["hit_rate"] for r in runs]
    return {"policy": policy, "rounds": len(runs), **middle,
            "spread": {"hit_rate": [round(min(rates), 4), round(max(rates), 4)]}}
