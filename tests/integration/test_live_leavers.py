"""Callers who leave: the engine is freed at once, and what they used is on the bill as waste."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually

pytestmark = pytest.mark.integration
TENANT = "leaver"
LONG = 1900  # tokens: many seconds of work, were no one to stop it


@pytest.fixture(params=[True, False], ids=["streaming", "whole"])
def left(request: pytest.FixtureRequest, fleet: LiveFleet, callers: Callable[[str], Caller]) -> Iterator[float]:
    """A long request whose caller left while the engine worked on it: when that was, monotonic seconds."""
    caller = callers(TENANT)
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
    yield time.monotonic()


def test_leaving_frees_the_engine_within_a_second_and_is_charged_as_waste(fleet: LiveFleet, left: float) -> None:
    eventually(lambda: fleet.running_in_engine("llama") == 0, "the engine is free", 1 - (time.monotonic() - left), 0.02)
    count = fleet.row_count(TENANT)
    eventually(lambda: not _unwritten(fleet), "the rows of the request", 5)
    rows = fleet.rows(
        "SELECT q.outcome, q.code, c.outcome, c.nanousd, c.prompt_tokens, c.completion_tokens FROM requests q"
        " JOIN charges c USING (request_id) WHERE q.tenant = ? ORDER BY q.started_at DESC", TENANT)
    assert len(rows) >= max(count, 1)
    outcome, code, engine_outcome, nanousd, prompt, completion = rows[0]
    assert (outcome, code, engine_outcome) == ("aborted", 499, "aborted")
    assert nanousd > 0 and prompt > 0
    assert 0 < completion < LONG, "the engine stopped before the end"
    waste = fleet.metrics().sum("flotilla_cost_usd_total", tenant=TENANT, model="llama", bucket="waste")
    assert round(waste * 1e9) == sum(row[3] for row in rows)
    assert fleet.metrics().sum("flotilla_cost_usd_total", tenant=TENANT, bucket="direct") == 0
    assert fleet.metrics().sum("flotilla_requests_total", tenant=TENANT, code="499") == len(rows)
    assert fleet.metrics().sum("flotilla_requests_in_flight") == 0


def _unwritten(fleet: LiveFleet) -> bool:
    """Whether a request has its charge but no row of the gateway, or the other way round, or still runs."""
    rows, = fleet.rows("SELECT COUNT(*), SUM(outcome = 'running') FROM charges WHERE tenant = ?", TENANT)
    return not rows[0] or bool(rows[1]) or rows[0] != fleet.row_count(TENANT)
