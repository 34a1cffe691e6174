"""The admission benchmark: it asks every store, and says what it cannot ask."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from serving.bench import admission
from serving.bench.admission import AdmissionPlan, chosen, measure
from serving.cli import bench, output
from serving.errors import ConfigError


def test_each_store_is_measured_alone_and_together() -> None:
    report = measure(AdmissionPlan(("own", "fleet"), requests=64, together=(1, 4), rounds=1), lambda note: None)
    asked = [(r["store"], r["together"]) for r in report["stores"]]
    assert asked == [("own", 1), ("own", 4), ("fleet", 1), ("fleet", 4)]
    assert all(0 < r["p50_ms"] <= r["p99_ms"] for r in report["stores"])
    assert report["counters"] == 7 and not report["failed"]


def test_a_store_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission.shutil, "which", lambda program: None)
    report = measure(AdmissionPlan(("redis",), requests=8, rounds=1), lambda note: None)
    assert not report["stores"] and "redis-server" in report["failed"][0]["reason"]


def test_unknown_stores_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'redis'"):
        chosen(["rediss"])
    assert chosen(["redis", "own"]) == ("own", "redis")


def test_the_table_says_whether_the_goal_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = {"together": 1, "p50_ms": 0.1, "p90_ms": 0.2, "p99_ms": 0.3, "spread_p50_ms": [0.1, 0.1]}
    report = {"stores": [row | {"store": "fleet", "within": True}, row | {"store": "redis", "within": False}],
              "target_ms": admission.TARGET_MS, "counters": 7, "failed": []}
    out = io.StringIO()
    for module in (bench, output):
        monkeypatch.setattr(module, "console", Console(file=out, width=140))
    bench.show_admission(report)
    assert "held" in out.getvalue() and "missed" in out.getvalue()
