"""An engine that dies in the middle of an answer: no half answer passes for a whole one, and the fleet mends itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, engine_core, eventually

pytestmark = pytest.mark.integration
TENANT = "crash"


def test_a_killed_engine_ends_its_streams_with_an_error_and_comes_back(
        fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    caller = callers(TENANT)
    (before,) = fleet.replicas("llama")
    core = engine_core(fleet, "llama")
    stream = caller.open(CHAT, chat("llama", max_tokens=1900, stream=True))
    events = stream.events()
    seen = [next(events)[1] for _ in range(10)]
    assert all("error" not in json.loads(data) for data in seen)
    core.send_signal(signal.SIGKILL)
    rest = [data for _, data in events]
    assert rest and rest[-1] != "[DONE]" and "[DONE]" not in rest
    assert "error" in json.loads(rest[-1]), "the client is told"

    other = caller.call(CHAT, chat("qwen", max_tokens=5))
    assert other.status == 200, "the other model does not notice"

    def answers() -> bool:
        answer = caller.call(CHAT, chat("llama", max_tokens=5))
        assert answer.status in (200, 500, 502, 503), answer
        return answer.status == 200

    eventually(lambda: fleet.replicas("llama") not in ([], [before]) and answers(), "llama is back", 120, 0.5)
    (row,) = fleet.rows("SELECT outcome, code FROM requests WHERE request_id = ?",
                        stream.headers["x-flotilla-request-id"])
    assert row == ("failed", 200)
    books = json.loads(fleet.say("cost", "reconcile", "--json"))
    assert books["residual_nanousd"] == 0 and books["sources"] >= 3
