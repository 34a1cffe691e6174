"""What looking at a gateway takes, as the benchmark finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.bench import observing


def test_every_arm_runs_and_is_held_against_the_plain_one(tmp_path: Path) -> None:
    plan = observing.ObservingPlan(tuple(observing.ARMS), 1, 100, tmp_path / "state")
    report = observing.measure(plan, lambda note: None)
    assert [row["name"] for row in report["arms"]] == list(observing.ARMS)
    plain = report["arms"][0]
    assert plain["requests"]["ratio"] == plain["chunks"]["ratio"] == 1.0
    assert all(row["chunks"]["median"] > 0 for row in report["arms"])
    for own in report["access_log"].values():
        assert own["request_us"] > 0 and 0 < own["beyond_us"] < own["line_us"] < 1000


def test_lines_beyond_the_limit_cost_only_their_count() -> None:
    own = {"request_us": 0.5, "line_us": 10.0, "beyond_us": 0.1}
    assert observing.share(own, 100) == pytest.approx(100 * 10.5e-6)
    assert observing.share(own, 10_000) == pytest.approx(500 * 10.5e-6 + 9_500 * 0.1e-6)


@pytest.mark.parametrize(("requests", "chunks", "is_within"), [(0.995, 1.01, True), (0.98, 1.0, False),
                                                               (1.0, 0.98, False)])
def test_both_streams_and_whole_answers_must_keep_the_limit(requests: float, chunks: float, is_within: bool) -> None:
    assert observing.within({"requests": {"ratio": requests}, "chunks": {"ratio": chunks}}) == is_within
