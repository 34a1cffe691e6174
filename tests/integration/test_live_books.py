"""The promise of the ledger: every nano-dollar of the bill is somewhere, at any moment, and answers name their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from live_calls import CHAT, COMPLETIONS, Caller, chat
from live_fleet import LiveFleet, eventually, nano

pytestmark = pytest.mark.integration
TENANT = "books"


@contextmanager
def load(caller: Caller) -> Iterator[list[int]]:
    """Streams on both models without pause, every third one broken off by its caller. Gives the statuses so far."""
    stop, seen = threading.Event(), list[int]()

    def one(model: str) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            stream = caller.open(CHAT, chat(model, f"Turn {turn}", 60, stream=True))
            seen.append(stream.status)
            for number, _ in enumerate(stream.events()):
                if turn % 3 == 0 and number == 5:
                    break
            stream.close()

    threads = [threading.Thread(target=one, args=(m,)) for m in ("qwen", "llama") for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reconcile(fleet: LiveFleet) -> dict[str, Any]:
    """The command's verdict, which must be that all adds up."""
    done = fleet.run("cost", "reconcile", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, found["residual_nanousd"]) == (0, 0), found
    parts = ("requests", "idle", "cold_start", "overhead")
    assert found["bill_nanousd"] == sum(found[f"{part}_nanousd"] for part in parts)
    assert found["allocated_nanousd"] <= found["idle_nanousd"] + found["cold_start_nanousd"]
    assert not found["wrong_sources"]
    return found


def test_the_books_add_up_under_load_and_after_it(fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    with load(callers(TENANT)) as seen:
        eventually(lambda: len(seen) >= 4, "load")
        under = [reconcile(fleet) for _ in range(4)]
        eventually(lambda: len(seen) >= 12, "more load", 30)
    assert set(seen) == {200}
    for part in ("bill_nanousd", "requests_nanousd", "charged_requests"):
        grown = [found[part] for found in under]
        assert grown[0] < grown[-1] and grown == sorted(grown), f"{part} grows with the work: {grown}"
    fleet.settled()
    eventually(lambda: fleet.row_count(TENANT) >= len(seen), "the gateways' rows")
    after = reconcile(fleet)
    assert after["requests_nanousd"] > under[-1]["requests_nanousd"]
    outcomes = dict(fleet.rows("SELECT outcome, COUNT(*) FROM requests WHERE tenant = ? GROUP BY 1", TENANT))
    assert set(outcomes) == {"finished", "aborted"} and sum(outcomes.values()) == len(seen)


def test_every_answer_names_its_row_of_the_ledger_to_the_nano_dollar(
        fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    caller = callers(TENANT)
    bodies = [chat(m, f"Crate {i}", 3 + i, n=1 + i % 2) for i, m in enumerate(["qwen", "llama"] * 6)]
    named = {a.request_id: a.json["usage"] for a in caller.many(CHAT, bodies)}
    texts = [{"model": m, "prompt": ["one", "two"], "max_tokens": 5, "ignore_eos": True} for m in ("qwen", "llama")]
    named |= {a.request_id: a.json["usage"] for a in caller.many(COMPLETIONS, texts)}
    for model in ("qwen", "llama"):
        stream = caller.open(CHAT, chat(model, "Streamed", 20, stream=True, stream_options={"include_usage": True}))
        events = [data for _, data in stream.events()]
        named[stream.headers["x-flotilla-request-id"]] = json.loads(events[-2])["usage"]
    assert len(named) == 16

    eventually(lambda: len(_rows(fleet, named)) == len(named), "the rows of all requests")
    fleet.settled()
    for request_id, outcome, nanousd, prompt, completion, told_prompt, told_completion in _rows(fleet, named):
        usage = named[request_id]
        assert outcome == "finished"
        assert nanousd == nano(usage["cost"]) > 0
        # the gateway reads tokens from the answer, the replica counts them in its engine
        assert completion == told_completion == usage["completion_tokens"]
        assert told_prompt == usage["prompt_tokens"] <= prompt, "n choices are n prompts to the engine"


def _rows(fleet: LiveFleet, named: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = fleet.rows(
        "SELECT request_id, c.outcome, c.direct + c.waste + c.idle + c.cold_start, c.prompt_tokens,"
        " c.completion_tokens, q.prompt_tokens,"
        " q.completion_tokens FROM requests q JOIN charges c USING (request_id) WHERE q.tenant = ?", TENANT)
    return [row for row in found if row[0] in named]


def test_usage_by_tenant_holds_what_the_rows_hold(fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    callers(TENANT).call(CHAT, chat("qwen", max_tokens=3))
    fleet.settled()
    rows = {(r["tenant"], r["model"]): r for r in json.loads(fleet.say("usage", "--json"))}
    charged = dict(fleet.rows("SELECT s.model, SUM(c.direct + c.waste + c.idle + c.cold_start) FROM charges c"
                              " JOIN sources s USING (source_id) WHERE c.tenant = ? GROUP BY 1", TENANT))
    assert charged["qwen"] > 0
    assert {model: rows[TENANT, model]["nanousd"] for model in charged} == charged
