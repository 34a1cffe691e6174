"""Callers who leave: the engine is freed at once, and what they used is on the bill as waste."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually, nano

pytestmark = pytest.mark.integration
TENANT = "leaver"
LONG = 1900  # tokens: many seconds of work, were no one to stop it


@dataclass(frozen=True)
class Left:
    """A request whose caller has left. at: monotonic seconds; nth: which one of this tenant it was."""

    at: float
    nth: int


@pytest.fixture(params=[True, False], ids=["streaming", "whole"])
def left(request: pytest.FixtureRequest, fleet: LiveFleet, callers: Callable[[str], Caller]) -> Left:
    """A long request whose caller left while the engine worked on it."""
    caller, before = callers(TENANT), fleet.row_count(TENANT)
    eventually(lambda: fleet.running_in_engine("llama") == 0, "an idle engine", 30)
    body = chat("llama", "A long story, please.", LONG, stream=request.param)
    if request.param:
        stream = caller.open(CHAT, body)
        events = stream.events()
        for _ in range(5):
            next(events)
    else:
        stream = caller.send(CHAT, body)
        eventually(lambda: fleet.running_in_engine("llama") == 1, "the engine at work")
    assert fleet.running_in_engine("llama") == 1
    stream.close()
    return Left(time.monotonic(), before + 1)


def test_leaving_frees_the_engine_within_a_second_and_is_charged_as_waste(fleet: LiveFleet, left: Left) -> None:
    within = left.at + 1 - time.monotonic()
    eventually(lambda: fleet.running_in_engine("llama") == 0, "the engine is free", within, 0.02)
    eventually(lambda: len(_rows(fleet)) == left.nth, "the rows of the request", 5)
    rows = _rows(fleet)
    outcome, code, engine_outcome, nanousd, prompt, completion = rows[-1]
    assert (outcome, code, engine_outcome) == ("aborted", 499, "aborted")
    assert nanousd > 0 and prompt > 0
    assert 0 < completion < LONG, "the engine stopped before the end"
    found = fleet.metrics()
    waste = found.sum("flotilla_cost_usd_total", tenant=TENANT, model="llama", bucket="waste")
    assert nano(waste) == sum(row[3] for row in rows)
    assert found.sum("flotilla_cost_usd_total", tenant=TENANT, bucket="direct") == 0
    assert found.sum("flotilla_requests_total", tenant=TENANT, code="499") == left.nth
    assert found.sum("flotilla_requests_in_flight") == 0


def _rows(fleet: LiveFleet) -> list[tuple[Any, ...]]:
    """Requests of this tenant that are over, with their charges, in the order of their beginning."""
    return fleet.rows(
        "SELECT q.outcome, q.code, c.outcome, c.direct + c.waste, c.prompt_tokens, c.completion_tokens FROM requests q"
        " JOIN charges c USING (request_id) WHERE q.tenant = ? AND c.outcome <> 'running' ORDER BY started_at", TENANT)
