"""The bench of the load test's client: it counts what was sent, and says when a rate is above its limit."""

from __future__ import annotations

import pytest

from loadtests import bench


def test_every_chunk_is_stamped_after_it_was_sent(capsys):
    found = bench.measure(chunks_per_s=500.0, streams=5, seconds=1.0)
    assert found["chunks"] == 500 and found["streams"] == 5
    assert found["chunks_per_s"] == pytest.approx(500, rel=0.2)
    assert 0 <= found["error_p50_ms"] <= found["error_p99_ms"] <= found["error_max_ms"]


@pytest.mark.parametrize(("p99", "rate", "code"), [(4.9, 8000.0, 0), (5.1, 8000.0, 1), (1.0, 7000.0, 1)])
def test_a_rate_above_the_limit_is_said(monkeypatch, capsys, p99, rate, code):
    figures = {"chunks": 1, "streams": 200, "chunks_per_s": rate, "error_p50_ms": 0.1, "error_p99_ms": p99,
               "error_max_ms": 9.0, "loop_lag_p99_ms": 1.0, "cpu_share": 0.5}
    monkeypatch.setattr(bench, "_run", lambda *_: dict(figures))
    assert bench.main([]) == code
    assert ("above its limit" in capsys.readouterr().err) == bool(code)
