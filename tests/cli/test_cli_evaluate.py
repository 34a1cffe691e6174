"""`flotilla simulate --evaluate`: what it reads, what it leaves out and says so, and how it shows what it found."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("SIMULATOR_LOOPS", "plain")

import pytest  # noqa: E402

from serving.cli import evaluate, output, simulated  # noqa: E402
from serving.fleet.autoscaling.queue import Queue  # noqa: E402
from serving.fleet.autoscaling.slo import SloRule  # noqa: E402
from serving.fleet.catalogue import load  # noqa: E402
from serving.simulator import evaluation  # noqa: E402
from serving.simulator.evaluation import Judged, Result, Verdict  # noqa: E402

FLEET = Path("deployments/fleets/evaluation.yaml")


def write(path: Path, count: int, gap_s: float) -> None:
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
        f"2023-11-16 {18 + int(n * gap_s) // 3600}:{int(n * gap_s) // 60 % 60:02}:{n * gap_s % 60:09.6f},{100 + n % 7},"
        f"{10 + n % 5}\n" for n in range(count)))


def test_traces_that_are_too_short_are_left_out_by_name_and_spikes_are_always_there(tmp_path: Path) -> None:
    write(tmp_path / "AzureLLMInferenceTrace_conv.csv", 1_200, 1.0)
    write(tmp_path / "AzureLLMInferenceTrace_code.csv", 50, 1.0)
    (tmp_path / "README.md").write_text("no trace")
    skipped: dict[str, str] = {}
    found = {name: rows for name, _, rows in evaluate.traces(tmp_path, 0, skipped)}
    assert set(found) == {"azure-conv", "spikes"} and len(found["azure-conv"]) == 1_200 and found["spikes"] is None
    assert "50 requests in 49 s" in skipped["azure-code"] and "--traces" in skipped["azure-code"]


def test_a_trace_goes_to_the_model_that_has_its_name_and_is_repeated_until_it_needs_as_many() -> None:
    fleet = load(FLEET)
    rows = [{"at_s": n * 0.5, "input_tokens": 8_000, "output_tokens": 100, "session": 0, "blocks": [], "model": "",
             "block_tokens": 0} for n in range(2_000)]
    long = evaluate._case(FLEET, fleet, None, "mooncake", "", rows, None, 8.0, 0.0, 0)
    short = evaluate._case(FLEET, fleet, None, "azure-conv", "", rows, None, 8.0, 0.0, 0)
    assert long.service.name == "gpt-oss" and short.service.name == "llama"
    for case in (long, short):
        need = evaluation.needed(case.service, case.traffic)
        assert 8 / 1.5 < need < 8 * 1.5 or case.copies == 1


def told() -> dict:
    fleet = load(FLEET)
    profile = simulated.profile_of(fleet, FLEET, "llama", None)
    service = simulated.service(fleet, "llama", {"llama": profile}, SloRule(), 0.0)
    ours, other = Result(SloRule(), 0.95, 123.4, 400.0, 99, 7), Result(Queue(), 0.93, 234.5, 700.0, 99, 9)
    judged = {"ours": Judged("ours", ours, ours, (ours,)), "ray-default": Judged("ray-default", other, other, (other,))}
    verdict = Verdict(judged, "ray-default", {"ray-default": ours})
    case = evaluation.Case("azure-conv", service, evaluation.spikes(600.0, 1.0, 0), 3, "file")
    return {"traces": {"azure-conv": evaluate._told(case, verdict)}, "skipped": {"azure-code": "too short"},
            "summary": evaluation.summary({"azure-conv": verdict})}


def test_the_table_fits_a_terminal_and_says_what_was_saved(capsys: pytest.CaptureFixture[str],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.console, "_width", 80)  # setting `width` cannot be undone
    found = told()
    assert found["traces"]["azure-conv"]["gpu_hours_saved"] == pytest.approx(1 - 123.4 / 234.5)
    assert found["traces"]["azure-conv"]["policies"]["ray-default"]["setting"]["target_waiting"] == 5.0
    evaluate.show(found)
    said = capsys.readouterr().out
    assert "47.4%" in said and "ray-default *" in said and "azure-code: too short" in said and "30%" in said
    assert "alone: ray-default 47.4%" in said
    assert all(len(line) <= 80 for line in said.splitlines()[:4])  # then sentences
