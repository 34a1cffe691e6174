"""What is computed beside those who ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from serving.telemetry.background import Background


class Slow:
    """A computation that counts, waits where it is told to, and may fail."""

    def __init__(self) -> None:
        self.calls, self.fails = 0, False
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        self.begun.set()
        assert self.gate.wait(10)
        if self.fails:
            raise ValueError("it fails")
        return number


def until(so: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if so():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to be")


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.gate.set()


def test_who_asks_for_a_fresh_value_gets_one_each_time(slow: Slow) -> None:
    made = Background(slow)
    assert [made.fresh(5) for _ in range(3)] == [1, 2, 3]


def test_nobody_waits_longer_than_wanted_and_nothing_runs_twice_at_once(slow: Slow) -> None:
    made = Background(slow)
    slow.gate.clear()
    for _ in range(3):
        with pytest.raises(TimeoutError, match="0.01 s"):
            made.fresh(0.01)
    assert slow.calls == 1
    slow.gate.set()
    assert made.fresh(5) in (1, 2)


def test_those_who_ask_at_once_share_one_computation(slow: Slow) -> None:
    made = Background(slow)
    slow.gate.clear()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(made.fresh(10))) for _ in range(8)]
    threads[0].start()
    assert slow.begun.wait(5)
    for thread in threads[1:]:
        thread.start()
    slow.gate.set()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8 and slow.calls < 8


def test_what_is_known_is_told_without_waiting_and_computed_anew_when_it_is_old(slow: Slow) -> None:
    now = [0.0]
    made = Background(slow, lambda: now[0])
    slow.gate.clear()
    assert made.latest(30) is None  # and has begun
    slow.gate.set()
    until(lambda: made.latest(30) == 1)
    now[0] = 29.0
    assert (made.latest(30), slow.calls) == (1, 1)
    slow.gate.clear()
    now[0] = 30.0
    assert made.latest(30) == 1, "the old one, while the new one is made"
    slow.gate.set()
    until(lambda: made.latest(30) == 2)
    assert (made.latest(30), slow.calls) == (2, 2)


def test_a_failure_is_told_and_forgotten_with_the_next_success(slow: Slow) -> None:
    now = [0.0]
    made = Background(slow, lambda: now[0])
    assert made.fresh(5) == 1
    slow.fails = True
    with pytest.raises(ValueError, match="it fails"):
        made.fresh(5)
    assert made.latest(30) is None, "the value of before would hide the failure"
    assert slow.calls == 2, "it is not tried again before its time"
    slow.fails, now[0] = False, 30.0
    until(lambda: made.latest(30) == 3)
