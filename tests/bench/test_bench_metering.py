"""The metering benchmark: turns, figures, and a stopwatch that counts only what a subclass adds. No engine here."""

from __future__ import annotations

import io
import itertools
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bench import metering, own_time
from serving.bench.metering import TURNS, BooksCost, MeteringPlan, Pass, Work, figures, interval, order
from serving.cli import bench, output
from serving.errors import StartFailed

BOOKS = BooksCost([100_000, 120_000, 140_000], 0.5, 2_000)
CLOCKS = {"timed": 400.0, "timed_cpu": 900.0}


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Plain:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def update(self) -> str:
        self.clock.now += 1_000
        self.free()
        self.clock.now += 2_000
        return "outputs"

    def free(self) -> None:
        self.clock.now += 500

    def untouched(self) -> None:
        self.clock.now += 10_000


class Metered(Plain):
    def update(self) -> str:
        self.clock.now += 7
        try:
            return super().update()
        finally:
            self.clock.now += 11
            self._send()

    def free(self) -> None:
        self.clock.now += 3
        super().free()

    def _send(self) -> None:
        self.clock.now += 5


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(clock: Clock) -> own_time.OwnTime:
    return own_time.OwnTime(clock)


def test_only_what_the_subclass_adds_is_counted(clock: Clock, own: own_time.OwnTime) -> None:
    made = own_time.timed(Metered, Plain, own)(clock)
    assert made.update() == "outputs"
    assert own.take() == 7 + 11 + 5 + 3  # what `update` adds around and `free` inside of it, and no more
    made.untouched()
    assert own.take() == 0
    assert clock.now == 1_000 + 2_000 + 500 + 26 + 10_000


def test_an_error_from_below_leaves_the_stopwatch_standing(clock: Clock, own: own_time.OwnTime,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Plain) -> None:
        clock.now += 500
        raise ValueError

    monkeypatch.setattr(Plain, "free", broken)
    made = own_time.timed(Metered, Plain, own)(clock)
    with pytest.raises(ValueError):
        made.update()
    clock.now += 10**6
    assert own.take() == 7 + 3 + 11 + 5


def test_a_live_object_can_change_to_the_timed_class_and_back(clock: Clock, own: own_time.OwnTime) -> None:
    made = Metered(clock)
    made.__class__ = own_time.timed(Metered, Plain, own)
    made.update()
    assert own.take() == 26
    made.__class__ = Plain  # type: ignore[assignment]
    clock.now = 0
    made.update()
    assert (clock.now, own.take()) == (3_500, 0)


def test_the_stopwatch_knows_its_own_cost() -> None:
    assert 0 < own_time.cost_ns(times=100) < 1e6


def test_each_turn_has_every_arm_and_every_second_one_goes_in_reverse() -> None:
    found = order(2, ("plain", "metered"))
    turns = [arm for arm, _ in found if not arm.startswith("timed")]
    assert turns == ["plain", "metered", "metered", "plain"] * TURNS
    for turn in range(2 * TURNS):
        of = [arm for arm, number in found if number == turn and not arm.startswith("timed")]
        assert sorted(of) == ["metered", "plain"]
    assert [arm for arm, _ in found if arm.startswith("timed")] == ["timed", "timed_cpu"] * 2


def passes(slower: float = 1.0, own_ns: int = 50_000, turns: int = 8) -> list[Pass]:
    """Steps of 5 ms of CPU; others hold up each turn in their own way, which a ratio within the turn does not see."""
    made = []
    for turn in range(turns):
        held = 5_000_000 * (turn % 3)
        for arm, cpu in (("plain", 5_000_000), ("metered", round(5_000_000 * slower))):
            made.append(Pass(arm, turn, [cpu + held] * 9, [cpu] * 9))  # type: ignore[arg-type]
    made.append(Pass("timed", 0, [5_000_000 + own_ns] * 9, [1] * 9, [own_ns] * 9))
    made.append(Pass("timed_cpu", 0, [10**9] * 9, [5_000_000 + own_ns] * 9, [own_ns] * 9))
    return made


def test_ratios_are_formed_within_a_turn() -> None:
    found = figures(passes(slower=1.02), BOOKS, CLOCKS)
    for middle in ("cpu_p50", "cpu_mean"):
        same = {"median": 1.02, "interval_95": [1.02, 1.02], "turns": [1.02, 1.02]}
        assert found["ratio"]["metered/plain"][middle] == same
    assert found["ratio"]["metered/plain"]["p50"] == {"median": 1.01, "interval_95": [1.0067, 1.02],
                                                      "turns": [1.0067, 1.02]}
    assert found["step_us"]["metered"]["p50"] == 10_100.0 and found["step_cpu_us"]["metered"]["p50"] == 5_100.0
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("own_ns", "within"), [(50_000, True), (50_001, False), (51_000, False)])
def test_the_share_is_of_the_step_without_metering(own_ns: int, within: bool) -> None:
    found = figures(passes(own_ns=own_ns), BOOKS, CLOCKS)
    for key in ("cpu", "p50", "p99"):
        assert found["own_share"][key] == pytest.approx(own_ns / 5_000_000, abs=1e-5)
    assert found["within"] is within
    assert found["answer"] == "own_share.cpu" and found["limit"] == 0.01


def test_a_ratio_that_is_surely_above_the_limit_is_believed() -> None:
    assert not figures(passes(slower=1.01), BOOKS, CLOCKS)["contradicted"]
    found = figures(passes(slower=1.011), BOOKS, CLOCKS)
    assert found["contradicted"] and not found["within"] and found["own_share"]["cpu"] <= 0.01


def test_rare_slow_steps_are_in_the_share_and_the_tail_but_not_in_the_middle() -> None:
    cpu, own = [5_030_000] * 95 + [5_900_000] * 5, [30_000] * 95 + [900_000] * 5
    timed = [Pass("timed", 0, cpu, cpu, own), Pass("timed_cpu", 0, cpu, cpu, own)]
    rest = [Pass(arm, 0, [5_000_000] * 100, [5_000_000] * 100) for arm in ("plain", "metered")]  # type: ignore[arg-type]
    found = figures([*rest, *timed], BOOKS, CLOCKS)
    assert found["own_share"] == {"cpu": 0.0147, "p50": 0.006, "p99": 0.18}
    assert found["own_us"] == {"p50": 30.0, "mean": 73.5, "p99": 900.0, "stopwatch": 0.4}


def test_books_and_gpu_steps_are_told_per_step() -> None:
    found = figures(passes(), BOOKS, CLOCKS)
    assert found["books_us"] == {"p50": 120.0, "mean": 120.0, "p99": 139.6, "cpu_per_step": 250.0}
    assert found["gpu_steps"] == [{"step_ms": 10.0, "own_share": 0.005, "books_cores": 0.025},
                                  {"step_ms": 30.0, "own_share": 0.00167, "books_cores": 0.00833}]


def test_passes_that_did_not_do_the_same_steps_are_no_comparison() -> None:
    with pytest.raises(StartFailed, match=r"\[8, 9\] steps"):
        figures([*passes(), Pass("plain", 9, [1] * 8, [1] * 8)], BOOKS, CLOCKS)
    with pytest.raises(StartFailed, match=r"\[0\] steps"):
        figures([Pass("plain", 0, [], []), Pass("metered", 0, [], [])], BOOKS, CLOCKS)


def test_the_interval_drops_what_the_sign_test_allows() -> None:
    assert interval([float(n) for n in range(1, 21)]) == (6.0, 15.0)  # the textbook's, 20 values: 95.9 %
    assert interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)
    assert interval([2.0]) == (2.0, 2.0)


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=60))
def test_the_interval_holds_the_median_it_was_made_of(values: list[float]) -> None:
    low, high = interval(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(1)
    held = sum(low <= 1.0 <= high for low, high in (
        interval([chance.gauss(1.0, 0.1) for _ in range(20)]) for _ in range(2_000)))
    assert 0.94 <= held / 2_000 <= 0.98


# -- the process that is measured, stood in for


ENGINE = """
import json, sys
from serving.bench.metering import Work, order
work = Work.from_json(sys.argv[1])
with open(sys.argv[2], "a") as out:
    print(json.dumps({"note": f"begin with {work.running}"}), file=out, flush=True)
    if work.running == 13:
        print("the tiles are missing", flush=True)
        sys.exit(3)
    steps = [5_000_000] * work.tokens
    passes = [{"arm": arm, "turn": turn, "steps_ns": steps, "cpu_ns": steps,
               "own_ns": [20_000] * work.tokens if arm.startswith("timed") else []}
              for arm, turn in order(work.rounds, ("plain", "metered"))]
    books = {"take_ns": [90_000], "cpu_s": 0.1, "steps": 1000}
    found = {"passes": passes, "books": books, "clocks_ns": {"timed": 1, "timed_cpu": 2},
             "engine": {"async_scheduling": True}}
    print(json.dumps({"found": found}), file=out, flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the engine's place, and no checkpoint."""
    script = tmp_path / "stand_in.py"
    script.write_text(ENGINE)
    monkeypatch.setattr(metering.checkpoints, "make", lambda family, root: tmp_path)
    monkeypatch.setattr(metering, "_command", lambda work, said: (sys.executable, str(script), work.to_json(), said))
    return tmp_path


def test_what_the_engine_found_becomes_the_report(stand_in: Path) -> None:
    notes: list[str] = []
    report = metering.measure(MeteringPlan(2, 64, stand_in / "state", tokens=5), notes.append)
    assert notes[-1] == "begin with 64"
    assert report["load"] == {"model": "small:qwen3", "running": 64, "tokens": 5, "rounds": 2, "turns": 8,
                              "steps_per_pass": 5, "async_scheduling": True}
    assert report["within"] and report["own_share"]["p50"] == pytest.approx(20 / 4980, abs=1e-5)
    assert report["others_cores"] >= 0 and report["machine"]["cores"] >= 1


def test_an_engine_that_breaks_off_is_told_with_its_last_words(stand_in: Path) -> None:
    with pytest.raises(StartFailed, match="broke off.*the tiles are missing"):
        metering.measure(MeteringPlan(1, 13, stand_in / "state"), lambda note: None)


def test_the_engine_is_told_its_work_whole() -> None:
    work = Work("/some/folder", 5, 64, 256)
    assert Work.from_json(work.to_json()) == work


# -- what people read


def shown(monkeypatch: pytest.MonkeyPatch, others: float = 0.0, **changes: Any) -> str:
    report = {"load": {"running": 64, "turns": 8}, "others_cores": others, **figures(passes(**changes), BOOKS, CLOCKS)}
    out = io.StringIO()
    monkeypatch.setattr(output.console, "_file", out)
    monkeypatch.setattr(output.console, "_width", 80)
    bench.show_metering(report)
    return out.getvalue()


def test_the_report_says_which_figure_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, own_ns=40_000, slower=1.01)
    assert "Metering's own code takes 0.80% of the engine's time, within the 1% it may. This figure answers" in text
    assert "0.40% of 10 ms, 0.13% of 30 ms" in text
    assert "metered/plain" in text
    assert "1.010" in text and "does not say otherwise" in text
    assert "120 µs to book a step" in text and "2.5% of a core" in text
    assert "not quiet" not in text


def test_too_much_and_a_noisy_machine_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, own_ns=70_000, others=0.7)
    assert "1.40%" in text and "above the 1% it may" in text
    assert "others took up to 0.70 cores" in text
    assert "The ratio of CPU says more" in shown(monkeypatch, slower=1.03)


def test_no_row_of_a_table_is_wider_than_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    head: Sequence[str] = list(itertools.takewhile(lambda line: "Metering's own" not in line,
                                                   shown(monkeypatch).splitlines()))
    assert len([line for line in head if line.strip()]) == 9 and max(map(len, head)) <= 80
