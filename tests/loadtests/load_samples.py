"""Scenarios and records for tests: a good default of each, and what a test wants to differ."""

from __future__ import annotations

from typing import Any

from loadtests.metrics import quantiles
from loadtests.records import Record
from loadtests.runinfo import Arrivals, RunInfo
from loadtests.scenario import Scenario

CHAT = {
    "kind": "chat",
    "prompt_tokens": {"kind": "uniform", "low": 5, "high": 20},
    "output_tokens": {"kind": "uniform", "low": 4, "high": 12},
}
CONVERSATION = {
    "kind": "conversation",
    "system_tokens": 30,
    "turns": {"kind": "constant", "value": 3},
    "prompt_tokens": {"kind": "constant", "value": 10},
    "output_tokens": {"kind": "constant", "value": 4},
    "think_time_s": 0.05,
}


def scenario_document(**changes: Any) -> dict[str, Any]:
    document = {
        "name": "test",
        "duration_s": 10.0,
        "warmup_s": 0.0,
        "seed": 1,
        "arrivals": {"process": "poisson", "rate_per_s": 5.0},
        "models": {"a": {"weight": 3, "users": [CHAT]}, "b": {"weight": 1, "users": [CHAT, CONVERSATION]}},
    }
    return document | changes


def make_scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate(scenario_document(**changes))


def make_record(**changes: Any) -> Record:
    """A stream: sent at 1.0 s, first token 100 ms later, 11 tokens 10 ms apart, so the last at 1.2 s."""
    values: dict[str, Any] = {
        "request_id": "r",
        "server_request_id": None,
        "model": "a",
        "user_kind": "chat",
        "arrival": 0,
        "turn": 1,
        "stream": True,
        "warmup": False,
        "max_tokens": 11,
        "scheduled": 0.99,
        "sent": 1.0,
        "first_content": 1.1,
        "last_content": 1.2,
        "ended": 1.25,
        "status": 200,
        "error": None,
        "chunks": 11,
        "inter_chunk_ms": {"count": 10, "p50": 10.0, "p99": 10.0, "max": 10.0},
        "prompt_tokens": 20,
        "cached_tokens": 5,
        "completion_tokens": 11,
        "cost_usd": 0.001,
        "finish_reason": "length",
    }
    return Record.model_validate(values | changes)


def failed(**changes: Any) -> Record:
    """A request that got a 500."""
    nothing = dict.fromkeys(
        ("first_content", "last_content", "inter_chunk_ms", "prompt_tokens", "cached_tokens")
        + ("completion_tokens", "cost_usd", "finish_reason")
    )
    error = {"kind": "http_500", "detail": "<b>no</b>"}
    return make_record(**nothing, chunks=0, status=500, error=error, **changes)


def make_run(scenario: Scenario, **changes: Any) -> RunInfo:
    """run.json of a run that kept to its schedule."""
    values: dict[str, Any] = {
        "scenario": scenario,
        "scenario_file": "test.yaml",
        "base_url": "http://127.0.0.1:1",
        "seed": scenario.seed,
        "started_unix": 1_800_000_000.0,
        "ended_unix": 1_800_000_010.0,
        "interrupted": False,
        "requests": 1,
        "errors_by_kind": {},
        "arrivals": Arrivals(
            scheduled=50, sent=50, nominal_rate_per_s=5, requested_rate_per_s=5, achieved_rate_per_s=5
        ),
        "dispatch_lateness_ms": quantiles([1.0, 2.0]),
        "loop_lag_ms": quantiles([0.5]),
        "locust_version": "2",
        "python_version": "3",
    }
    return RunInfo.model_validate(values | changes)
