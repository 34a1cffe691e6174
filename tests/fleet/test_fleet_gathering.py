"""Many tellers, one load: what comes and goes is counted once, and silence makes a measurement old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.autoscaling.gathering import Gathering, Growing, Heard
from serving.fleet.autoscaling.told import GatewayTold, ReplicaTold
from serving.fleet.stepmodel import StepModel

LATER = 100.0  # past the beginning, in which nobody's history is news


def gathered(gathering: Gathering, now: float, replicas: dict[str, ReplicaTold], gateways: dict[str, GatewayTold],
             silent: frozenset[str] = frozenset()):
    """All told a second ago, the silent ones a minute ago."""
    def at(name: str) -> float:
        return now - (60 if name in silent else 1)

    return gathering.load(now, {n: Heard(at(n), t) for n, t in replicas.items()}, 0,
                          {n: Heard(at(n), t) for n, t in gateways.items()})


def test_what_all_of_them_tell_adds_up() -> None:
    told = {"a": ReplicaTold(running=3, waiting=1, waiting_tokens=40, cache=0.5),
            "b": ReplicaTold(running=1, cache=0.1)}
    load = gathered(Gathering(), 10.0, told, {"g": GatewayTold(5, 2, 30), "h": GatewayTold(7, 1, 20)})
    assert load is not None and (load.running, load.waiting, load.queued, load.queued_tokens) == (4, 1, 3, 90)
    assert (load.at_s, load.ready, load.starting, load.cache) == (9.0, (2,), (0,), 0.3)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_counter_over_processes_that_begin_anew_is_the_sum_of_what_each_counted(lives: list[list[int]]) -> None:
    """Each life begins at 0 under the same name or another."""
    growing, expected = Growing(), 0.0
    for number, steps in enumerate(lives):
        count = 0.0
        growing.add(f"life{number % 2}", 0.0, True)
        for step in steps:
            count += step
            growing.add(f"life{number % 2}", count, True)
        expected += count
        assert growing.total == expected
        growing.keep({f"life{number % 2}"})


def test_history_from_before_we_listened_is_no_news_and_a_new_processs_is() -> None:
    gathering = Gathering()
    first = gathered(gathering, 0.0, {"a": ReplicaTold(finished=900)}, {"g": GatewayTold(1_000)})
    assert first is not None and first.arrived == 0 and first.sums.finished == 0
    gathered(gathering, LATER, {"a": ReplicaTold(finished=903)}, {"g": GatewayTold(1_004)})
    last = gathered(gathering, LATER + 2, {"b": ReplicaTold(finished=2)}, {"h": GatewayTold(3)})
    assert last is not None and (last.arrived, last.sums.finished) == (7, 5)


def test_busy_and_late_are_of_the_time_since_the_last_measurement() -> None:
    gathering = Gathering()
    gathered(gathering, 0.0, {"a": ReplicaTold(), "b": ReplicaTold()}, {"g": GatewayTold()})
    load = gathered(gathering, 10.0, {"a": ReplicaTold(busy_s=10), "b": ReplicaTold(busy_s=5)},
                    {"g": GatewayTold(promised=10, missed=1)})
    assert load is not None and (load.busy, load.late) == (0.75, 0.1)


def test_one_that_is_silent_makes_it_old_and_one_that_has_not_spoken_yet_has_time() -> None:
    gathering, told = Gathering(), {"a": ReplicaTold(), "b": ReplicaTold()}
    load = gathered(gathering, LATER, told, {"g": GatewayTold()}, frozenset({"b"}))
    assert load is not None and load.at_s == LATER - 60
    assert gathered(gathering, LATER, told, {}) is None
    for now in (LATER, LATER + 20):
        new = gathering.load(now, {"c": None}, 0, {"g": Heard(now, GatewayTold())})
        assert new is not None and new.at_s == LATER


def test_what_replicas_say_of_themselves_is_known_after_they_are_gone() -> None:
    gathering = Gathering()
    gathered(gathering, 0.0, {"a": ReplicaTold(fixed=0.02, token=0.0, attention=0.0, cache_s=0.0, start_s=30, price=7,
                                               kv_tokens=640, batched_tokens=64), "b": ReplicaTold()},
             {"g": GatewayTold()})
    gathered(gathering, 9.0, {}, {"g": GatewayTold()})
    known = gathering.known
    assert known.steps == StepModel(0.02, 0.0, 0.0, 0.0)
    assert (known.kv_tokens, known.batched_tokens, known.start_s, known.price) == (640, 64, 30.0, 7)


def test_messages_survive_their_flat_form_and_half_ones_are_none() -> None:
    told = GatewayTold(1, 2, 3, 4, 5)
    numbers = told.numbers("qwen") | GatewayTold(9).numbers("llama")
    assert GatewayTold.of(numbers, "qwen") == told and GatewayTold.of(numbers, "gone") is None
    replica = ReplicaTold(running=1, fixed=0.5)
    assert ReplicaTold.of(replica.numbers()) == replica
    assert ReplicaTold.of({"flotilla_running": 1.0}) is None
