"""Hours and prices of a span of time, from intervals that do not begin and end with it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from serving.costs.rows import time_of
from serving.fleet.records import IntervalRecord

HOUR_NS = 3600 * 10**9


@dataclass(frozen=True)
class Row:
    record: IntervalRecord
    role: str = "replica"
    model: str = "qwen"
    variant: str = "core"
    idle_tenant: str = ""
    left_idle: int = 0
    left_cold_start: int = 0


HOUR = Row(IntervalRecord("r1", 0.0, 1000, HOUR_NS, 0, HOUR_NS, 0, 0, 1000, 0, 0))
GATEWAY = Row(IntervalRecord("g1", 0.0, 600, HOUR_NS, 0, 0, 0, 0, 0, 0, 600), role="gateway", model="")


def test_without_a_span_everything_counts() -> None:
    found = time_of([HOUR, GATEWAY])
    assert (found.models["qwen"].elapsed_ns, found.replicas_nanousd, found.overhead_nanousd) == (HOUR_NS, 1000, 600)


def test_of_an_interval_that_began_before_only_its_part_counts() -> None:
    found = time_of([HOUR, GATEWAY], since=2700.0)
    assert found.models["qwen"].elapsed_ns == pytest.approx(HOUR_NS / 4)
    assert found.models["qwen"].nanousd_per_hour == pytest.approx(1000)
    assert (found.replicas_nanousd, found.overhead_nanousd) == (250, 150)


def test_what_lies_outside_does_not_count() -> None:
    assert time_of([HOUR], since=3600.0).models == {} and time_of([HOUR], until=0.0).models == {}
