"""The traces that are shipped can be replayed, and the full ones where FLOTILLA_TRACE_FILES names their folder."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from load_samples import CHAT, make_scenario

import loadtests
from loadtests.arrivals import schedule
from loadtests.resample import read_servegen, resample
from loadtests.stages import Span
from loadtests.timing import arrival_times
from loadtests.traces import read_trace

SAMPLES = Path(loadtests.__file__).parent / "data"
FULL = os.environ.get("FLOTILLA_TRACE_FILES", "")


@pytest.mark.parametrize(("name", "kind", "rows", "first"), [
    ("azure-2023-conversations.csv", "azure", 400, (374, 44)), ("azure-2023-code.csv", "azure", 300, (4808, 10)),
    ("mooncake-synthetic.jsonl", "mooncake", 150, None),
])
def test_samples_are_read_whole(name, kind, rows, first):
    found = read_trace(SAMPLES / name, kind)
    assert len(found) == rows and found[0].at_s == 0.0
    assert all(before.at_s <= after.at_s for before, after in pairwise(found))
    assert first is None or (found[0].input_tokens, found[0].output_tokens) == first
    if kind == "mooncake":
        assert all(len(row.blocks) == -(-row.input_tokens // 512) for row in found)
        assert len({row.blocks[0] for row in found}) < len(found), "some prefixes are shared"


@pytest.mark.parametrize(("name", "kind"), [
    ("azure-2023-conversations.csv", "azure"), ("azure-2023-code.csv", "azure"),
    ("mooncake-synthetic.jsonl", "mooncake"), ("servegen-mm-image", "servegen"),
])
def test_a_scenario_replays_a_sample_by_its_name(name, kind, tmp_path):
    trace = {"process": "trace", "file": name, "format": kind, "speed": 2.0, "max_input_tokens": 100,
             "max_output_tokens": 20, "start_s": 39_000.0 if kind == "servegen" else 0.0}
    scenario = make_scenario(arrivals=trace, models={"a": {}, "b": {}}, duration_s=60.0)
    arrivals = schedule(scenario, tmp_path)
    assert len(arrivals) > 5 and arrivals == schedule(scenario, tmp_path)
    assert all(0 <= arrival.at_s < 60 and arrival.turns[0].prompt_tokens <= 100 for arrival in arrivals)
    assert {arrival.model for arrival in arrivals} == {"a", "b"}


def test_servegen_is_drawn_at_the_rate_it_says_and_a_later_start_is_a_part_of_it():
    clients = read_servegen(SAMPLES / "servegen-mm-image")

    def stream(*of: int) -> np.random.Generator:
        return np.random.default_rng((7, *of))

    day = resample(clients, 0.0, 86_400.0, stream)
    wanted = sum(window.rate_per_s * 600 for client in clients for window in client.windows if window.start_s < 86_400)
    assert len(day) == pytest.approx(wanted, rel=0.1)
    late = resample(clients, 36_000.0, 3_600.0, stream)
    part = [row for row in day if 36_000 <= row.at_s < 39_600]
    assert [(row.input_tokens, row.output_tokens) for row in late] == [(r.input_tokens, r.output_tokens) for r in part]


def process(document: dict):
    return make_scenario(arrivals=document, models={"a": {"users": [CHAT]}}).processes[None]


def times(document: dict, length: float = 4000.0, seed: int = 5) -> np.ndarray:
    hold = Span("hold", "hold", 0.0, length, 1.0, 1.0, True)
    return arrival_times(process(document), (hold,), np.random.default_rng(seed))


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_gaps_have_the_burstiness_asked_for(cv):
    gaps = np.diff(times({"process": "gamma", "rate_per_s": 10.0, "cv": cv}, 8000.0))
    assert gaps.mean() == pytest.approx(0.1, rel=0.05) and gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


def test_constant_arrivals_are_even():
    gaps = np.diff(times({"process": "constant", "rate_per_s": 4.0}))
    assert gaps == pytest.approx(np.full(len(gaps), 0.25))


def test_a_day_has_its_peak_and_its_night():
    found = times({"process": "diurnal", "rate_per_s": 10.0, "amplitude": 0.8, "period_s": 1000.0, "peak_s": 250.0})
    counts, _ = np.histogram(found % 1000.0, bins=20, range=(0, 1000))
    middle = np.arange(20) * 50 + 25
    expected = 2000 * (1 + 0.8 * np.cos(2 * np.pi * (middle - 250) / 1000))
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_piecewise_rates_are_met_between_their_points():
    points = [{"at_s": 0, "rate_per_s": 0}, {"at_s": 1000, "rate_per_s": 20}, {"at_s": 2000, "rate_per_s": 20},
              {"at_s": 2000.001, "rate_per_s": 5}]
    counts, _ = np.histogram(times({"process": "piecewise", "points": points}, 3000.0), bins=3, range=(0, 3000))
    assert np.all(np.abs(counts - [10_000, 20_000, 5_000]) < 5 * np.sqrt([10_000, 20_000, 5_000]))


@pytest.mark.skipif(not FULL, reason="the full traces are not here: FLOTILLA_TRACE_FILES=FOLDER")
@pytest.mark.parametrize(("name", "kind", "rows"), [
    ("AzureLLMInferenceTrace_conv.csv", "azure", 19_366), ("AzureLLMInferenceTrace_code.csv", "azure", 8_819),
    ("mooncake_synthetic_trace.jsonl", "mooncake", 3_993),
])
def test_full_files_are_read_whole(name, kind, rows):
    found = read_trace(Path(FULL) / name, kind)
    # requests without an answer cannot be replayed
    assert rows * 0.99 <= len(found) <= rows
    assert found[-1].at_s > 1_000


@pytest.mark.skipif(not FULL, reason="the full traces are not here: FLOTILLA_TRACE_FILES=FOLDER")
def test_all_of_servegen_is_drawn():
    clients = read_servegen(Path(FULL) / "servegen-mm-image")
    assert len(clients) > 25
    hour = resample(clients, 36_000.0, 3_600.0, lambda *of: np.random.default_rng(of))
    wanted = sum(w.rate_per_s * 600 for c in clients for w in c.windows if 36_000 <= w.start_s < 39_600)
    assert len(hour) == pytest.approx(wanted, rel=0.1)
