"""The command line's pure pieces: money as text, the facts and sums handed to the load test's report."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from serving.cli import output
from serving.cli.load import context, window
from serving.costs.figures import dollars
from serving.fleet.catalogue import load
from serving.fleet.records import Tokens
from serving.ledger.store import Ledger
from serving.ledger.sums import ModelSums
from serving.supervisor import _in_short

FLEET = Path(__file__).resolve().parents[2] / "deployments" / "fleets" / "laptop.yaml"


@pytest.mark.parametrize(("usd", "text"), [
    (0, "$0"), (None, "–"), (1.5, "$1.50"), (0.0416, "$0.0416"), (1.2345e-7, "$0.000000123"), (12345.678, "$12,345.68"),
    (0.00999, "$0.00999"), (99.99, "$99.99"),
])
def test_money_stays_readable(usd: float | None, text: str) -> None:
    assert dollars(usd) == text


def test_context_carries_what_the_report_needs() -> None:
    told = context(load(FLEET), FLEET)
    assert told["fleet"] == {"name": "laptop", "file": "laptop.yaml"}
    qwen = told["models"]["qwen"]
    assert qwen["random_weights"] is True and qwen["price_usd_per_hour"] == 0.0416
    assert {c["role"] for c in qwen["comparators"]} == {"same_model_hosted", "cheapest_proprietary", "frontier"}
    frontier = next(c for c in qwen["comparators"] if c["role"] == "frontier")
    assert (frontier["input_usd_per_mtok"], frontier["output_usd_per_mtok"]) == pytest.approx((5.0, 30.0))


def test_window_is_the_difference_of_two_moments(tmp_path: Path) -> None:
    def sums(direct: int, idle: int, running: int, requests: int) -> ModelSums:
        nanousd = {"direct": direct, "waste": 0, "idle": idle, "cold_start": 7, "overhead": 0}
        return ModelSums("qwen", nanousd, running, requests, Tokens(requests, 0, requests))

    told = window({"qwen": sums(100, 10, 5, 1)}, {"qwen": sums(180, 30, 0, 3), "new": sums(1, 0, 0, 1)},
                  Ledger.open(tmp_path / "ledger.db"))
    assert told["models"]["qwen"]["nanousd"] == {"direct": 75, "waste": 0, "idle": 20, "cold_start": 0, "overhead": 0}
    assert told["models"]["qwen"]["requests"] == 2
    assert told["models"]["new"]["nanousd"]["cold_start"] == 7
    assert told["residual_nanousd"] == 0


def test_a_failed_start_is_told_in_short() -> None:
    text = "The deployment failed 3 times.\nTraceback (most recent call last):\n  File x\nOSError: no such hub\n"
    assert _in_short(RuntimeError(text)) == "The deployment failed 3 times. … OSError: no such hub"
    assert _in_short(RuntimeError("")) == "RuntimeError"


def test_a_table_in_a_pipe_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    words = "a row of many words that no one would fold in a file" * 4
    output.table(["what", "how many>"], [(words, 1_000_000)])
    assert f"{words}   1000000" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(output, "console", Console())
    output.table(["what", "how many>"], [(words, 1_000_000)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40
