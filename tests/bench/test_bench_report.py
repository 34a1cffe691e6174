"""What people read of a benchmark: every arm with figures or its reason, and a word when the machine was not quiet."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

from serving.bench.figures import Run, against
from serving.cli import bench, output


@contextlib.contextmanager
def printed(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out = io.StringIO()
    monkeypatch.setattr(output.console, "_file", out)  # setting `file` cannot be undone
    monkeypatch.setattr(output.console, "_width", 80)
    yield out


def report(others: float = 0.01) -> dict[str, Any]:
    runs = [Run(name, streams, 0, wall, 1000, 20, (0.11,) * 20, {"path": 0.05}, others)
            for streams in (1, 32) for name, wall in (("vllm-serve", 1.0), ("flotilla", 1.02), ("ray-openai-app", 2.5))]
    return {"load": {"tokens": 64}, "arms": against(runs, "vllm-serve"),
            "failed": [{"name": "litellm", "streams": None, "reason": "[it] is not there"},
                       {"name": "ray-direct", "streams": 32, "reason": "status 500"}]}


def test_tables_name_every_arm_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    with printed(monkeypatch) as out:
        bench.show_gateway(report())
    text = out.getvalue()
    assert text.count("flotilla") == text.count("vllm-serve") == text.count("ray-openai-app") == 2
    assert "1 streams of 64 tokens" in text and "32 streams of 64 tokens" in text
    assert "0.980" in text and "0.050" in text
    assert "litellm is not in the tables: [it] is not there" in text
    assert "ray-direct at 32 streams is not in the tables: status 500" in text
    assert "not quiet" not in text


def test_a_machine_that_was_not_quiet_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with printed(monkeypatch) as out:
        bench.show_gateway(report(others=0.9))
    assert "others took up to 0.90 cores" in out.getvalue()


def test_the_relay_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"requests": {"requests_per_s": 5123.0, "requests_per_core_s": 5200.0},
             "chunks": {"chunks_per_s": 90000.0, "chunks_per_core_s": 91000.0},
             "paced_chunks": {"chunks_per_s": 24000.0, "chunks_per_core_s": 61000.0}}
    row = {"name": "flotilla", **rates, "memory": {"requests": 100_000, "rss_mib": [70.0, 71.5], "second_half_mib": 0}}
    with printed(monkeypatch) as out:
        bench.show_relay({"arms": [row], "failed": [], "load": {"paced_streams": 256, "paced_us": 10_000}})
    text = out.getvalue()
    assert "5,123" in text and "61,000" in text and "every 10 ms" in text
    assert "over 100,000 requests, MiB: 70 71.5" in text
