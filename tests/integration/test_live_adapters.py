"""Adapters over two replicas: loaded where they are needed, evicted by use, told apart by answers and by the bill.

A fleet of its own that takes a minute or two, so it runs only when FLOTILLA_ADAPTERS is set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import yaml
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually, fleet_file, listening, no_interrupts

pytestmark = [pytest.mark.integration,
              pytest.mark.skipif("FLOTILLA_ADAPTERS" not in os.environ, reason="FLOTILLA_ADAPTERS is not set")]
ADDED = ("one", "two", "three", "four", "five")  # of five, one of two replicas has to take three
NAMES = ("qwen", *(f"qwen:{name}" for name in ADDED))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """One model with two replicas, each of which keeps two adapters at most."""
    folder = tmp_path_factory.mktemp("pair")
    file = fleet_file(folder, ("qwen",), ("crew", "guest"))
    fleet = yaml.safe_load(file.read_text())
    fleet["models"]["qwen"] |= {"replicas": {"min": 2, "max": 2},
                                "lora": {"max_rank": 8, "max_loaded": 2, "max_per_step": 2}}
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    live = LiveFleet(folder / "state", file)
    try:
        live.start()
        for name in ADDED:
            live.say("adapters", "add", "qwen", name, "small:lora", "--tenant", "crew")
        yield live
    finally:
        with no_interrupts():
            live.run("down", timeout_s=120)


@pytest.fixture(scope="module")
def caller(pair: LiveFleet) -> Caller:
    made = Caller(pair.port, pair.new_key("crew"))
    eventually(lambda: made.call(CHAT, chat(NAMES[-1])).status == 200, "gateways know the last one", 10, 0.2)
    return made


def logprobs(answer: Any) -> tuple[float, ...]:
    """Of the first answered tokens, rounded as far as two replicas agree."""
    return tuple(round(token["logprob"], 2) for token in answer.json["choices"][0]["logprobs"]["content"])


def ask(name: str, session: str = "") -> dict[str, Any]:
    return chat(name, temperature=0, max_tokens=3, logprobs=True, **({"prompt_cache_key": session} if session else {}))


def test_base_and_adapters_answer_each_in_its_own_way_also_after_eviction(caller: Caller) -> None:
    """Five adapters take turns on two replicas that keep two each: some are loaded again, and are themselves again."""
    turns = [{name: logprobs(caller.call(CHAT, ask(name))) for name in NAMES} for _ in range(4)]
    assert len(set(turns[0].values())) == len(NAMES), turns[0]
    assert all(turn == turns[0] for turn in turns)


def test_a_second_replica_loads_on_demand_and_answers_alike(pair: LiveFleet, caller: Caller) -> None:
    alone = logprobs(caller.call(CHAT, ask("qwen:one")))
    bodies = [ask("qwen:one", f"s{n}") | {"max_tokens": 120} for n in range(48)]
    answers = caller.many(CHAT, bodies, 24)
    assert {a.status for a in answers} == {200}
    assert {logprobs(a)[:3] for a in answers} == {alone}
    pair.settled()
    found = pair.rows("SELECT DISTINCT c.source_id FROM charges c JOIN requests r USING (request_id)"
                      " WHERE r.adapter = 'qwen:one'")
    assert len(found) == 2


def test_the_bill_tells_them_apart(pair: LiveFleet) -> None:
    pair.settled()
    rows = json.loads(pair.say("cost", "--by", "adapter", "--json"))
    cost = {r["keys"]["adapter"]: r["nanousd"]["direct"] for r in rows["rows"]}
    assert all(cost[f"qwen:{name}"] > 0 for name in ADDED) and cost["qwen:one"] > cost["qwen:two"]
    assert rows["total_nanousd"] == rows["bill_nanousd"]
    used = {r["adapter"]: r for r in json.loads(pair.say("usage", "--by", "adapter", "--json"))}
    metrics = pair.metrics()
    for name in (f"qwen:{name}" for name in ADDED):
        assert metrics.sum("flotilla_adapter_requests_total", adapter=name) == used[name]["requests"]
        assert metrics.sum("flotilla_adapter_cost_usd_total", adapter=name) * 1e9 == pytest.approx(
            used[name]["nanousd"]), name


def test_who_is_not_named_may_not_use_them(pair: LiveFleet) -> None:
    guest = Caller(pair.port, pair.new_key("guest"))
    assert [guest.call(CHAT, ask(name)).status for name in ("qwen", "qwen:one")] == [200, 403]


def test_a_replica_that_is_new_has_them_too(pair: LiveFleet, caller: Caller) -> None:
    """As after scaling up: a replica that started after the adapters were added loads them when it is asked."""
    before, alone = set(pair.replicas("qwen")), logprobs(caller.call(CHAT, ask("qwen:two")))
    footprint = pair.footprint()
    assert footprint is not None
    ports = {int(address.rpartition(":")[2]) for address in before}
    for process in footprint.processes:
        if listening(process) & ports:
            psutil.Process(process.pid).kill()
    eventually(lambda: len(now := set(pair.replicas("qwen"))) == 2 and not now & before, "two new replicas", 150, 0.5)
    answer = eventually(lambda: a if (a := caller.call(CHAT, ask("qwen:two"))).status == 200 else None, "it answers",
                        60)
    assert logprobs(answer) == alone
