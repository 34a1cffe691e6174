"""OpenTelemetry's names beside Flotilla's own: only when asked for, and the same counts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from serving.fleet.catalogue import Fleet
from serving.fleet.observing import MetricsSpec
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.genai import NAMED, Named
from serving.telemetry.meter import PrometheusMeter
from serving.telemetry.metrics import BY_NAME

WHO = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "flotilla", "gen_ai_request_model": "qwen"}


def record(**changes: Any) -> RequestRecord:
    found = {"request_id": "flo-1", "caller_id": "", "tenant": "demo", "key_id": "k1", "model": "qwen",
             "endpoint": "chat_completions", "code": 200, "outcome": "finished", "started_at": 0.0, "duration_s": 1.1,
             "stream": True, "ttft_s": 0.1, "tokens": Tokens(5, 0, 11)}
    return RequestRecord(**found | changes)


def told(*records: RequestRecord, gen_ai: bool = True) -> CollectorRegistry:
    registry = CollectorRegistry()
    meter = PrometheusMeter({}, registry, gen_ai)
    for one in records:
        meter.answered(one, 1e-6, "a" * 32)
    return registry


def test_a_stream_is_counted_by_both_names_alike() -> None:
    registry = told(record())
    for ours, theirs, more in (
            ("flotilla_request_duration_seconds", "gen_ai_server_request_duration_seconds", {"error_type": ""}),
            ("flotilla_time_to_first_token_seconds", "gen_ai_server_time_to_first_token_seconds", {}),
            ("flotilla_time_per_output_token_seconds", "gen_ai_server_time_per_output_token_seconds", {})):
        mine = {"model": "qwen", "tenant": "demo"} | ({"endpoint": "chat_completions"} if more else {})
        assert registry.get_sample_value(f"{theirs}_sum", WHO | more) == registry.get_sample_value(f"{ours}_sum", mine)
        assert registry.get_sample_value(f"{theirs}_count", WHO | more) == 1
    for kind, count in (("input", 5), ("output", 11)):
        assert registry.get_sample_value("gen_ai_client_token_usage_sum", WHO | {"gen_ai_token_type": kind}) == count
    assert '# {trace_id="' + "a" * 32 in generate_latest(registry).decode().split("gen_ai_client_token_usage", 1)[1]


@pytest.mark.parametrize(("code", "outcome", "error"), [
    (503, "failed", "503"), (200, "failed", "stream_broken"), (499, "aborted", "499")])
def test_what_ended_badly_has_a_duration_with_its_error_and_no_speed(code: int, outcome: str, error: str) -> None:
    registry = told(record(code=code, outcome=outcome, tokens=None))
    assert registry.get_sample_value("gen_ai_server_request_duration_seconds_count", WHO | {"error_type": error}) == 1
    assert registry.get_sample_value("gen_ai_server_time_to_first_token_seconds_count", WHO) is None
    assert registry.get_sample_value("gen_ai_client_token_usage_count", WHO | {"gen_ai_token_type": "input"}) is None


def test_they_are_off_unless_the_fleet_file_says_so() -> None:
    assert not MetricsSpec().gen_ai and "gen_ai" in str(Fleet.model_json_schema())
    assert "gen_ai" not in generate_latest(told(record(), gen_ai=False)).decode()


@pytest.mark.parametrize("named", NAMED, ids=lambda n: n.name)
def test_names_are_those_that_prometheus_is_told_by_opentelemetry(named: Named) -> None:
    assert re.fullmatch(rf"{named.name.replace('.', '_')}(_seconds)?", named.metric.name)
    assert named.metric.name.endswith("_seconds") == (named.ours.endswith("_seconds"))
    assert named.ours in BY_NAME
    assert list(named.metric.buckets) == sorted(set(named.metric.buckets))
