"""Requests do not wait for records and prompts: those are made while no socket has anything to read."""

from __future__ import annotations

import time

import gevent
import gevent.event
import gevent.socket
import pytest
from load_samples import CHAT, make_scenario

from loadtests import later
from loadtests.later import Later
from loadtests.observation import Observation
from loadtests.records import RequestError
from loadtests.users import Dispatcher, RunClock, Share
from loadtests.workloads import Prompts


def test_a_socket_with_something_to_read_goes_before_the_next_job():
    """gevent.sleep(0) in its place lets all forty jobs go before."""
    one, other = gevent.socket.socketpair()
    done: list[int] = []
    before: list[int] = []

    def read() -> None:
        other.recv(1)
        before.append(len(done))

    reader = gevent.spawn(read)
    gevent.sleep(0.01)
    jobs = Later()
    for number in range(40):
        jobs.do(lambda number=number: done.append(number))
    one.send(b"x")
    worker = gevent.spawn(jobs.run)
    reader.join(5)
    while len(done) < 40:
        gevent.sleep(0.001)
    worker.kill()
    assert before[0] <= 2 and done == list(range(40))


def test_of_too_many_jobs_the_oldest_are_done_at_once(monkeypatch):
    monkeypatch.setattr(later, "_MOST", 3)
    jobs, done = Later(), []
    for number in range(5):
        jobs.do(lambda number=number: done.append(number))
    assert done == [0, 1]
    jobs.finish()
    assert done == [0, 1, 2, 3, 4]


class Engine:
    """Answers at steps, all who wait at once, as an engine does; keeps when each request came."""

    def __init__(self) -> None:
        self.came: list[float] = []
        self._step = gevent.event.Event()

    def send(self, body, request_id) -> Observation:
        self.came.append(time.perf_counter())
        seen = Observation(sent=0.0, ended=1.0, status=200)
        try:
            self._step.wait()
            seen.stamps = [0.5, 1.0]
        except gevent.GreenletExit:
            seen.error = RequestError(kind="interrupted", detail="the run was stopped")
        return seen

    def step(self) -> None:
        self._step.set()
        self._step.clear()


def dispatcher(engine: Engine, count: int, on_record) -> Dispatcher:
    scenario = make_scenario(models={"a": {"users": [CHAT]}}, arrivals={"process": "closed", "users": count},
                             duration_s=60.0)
    return Dispatcher(scenario, Prompts(scenario), engine, RunClock(time.time()), on_record, Share())


def test_users_whose_answers_end_together_ask_again_before_any_record_is_made():
    engine, come_by_then = Engine(), []
    at_work = dispatcher(engine, 8, lambda record, seen: come_by_then.append(len(engine.came)))
    running = gevent.spawn(at_work.run, ())
    while len(engine.came) < 8:
        gevent.sleep(0.001)
    engine.step()
    while len(come_by_then) < 8:
        gevent.sleep(0.001)
    at_work.stop()
    running.get(timeout=5)
    assert come_by_then[:8] == [16] * 8
    assert at_work.counts.done == at_work.counts.sent == 16


def test_a_record_that_cannot_be_made_ends_the_run_with_its_reason():
    def fail(record, seen) -> None:
        raise OSError("the disk is full")

    engine = Engine()
    at_work = dispatcher(engine, 2, fail)
    running = gevent.spawn(at_work.run, ())
    while len(engine.came) < 2:
        gevent.sleep(0.001)
    engine.step()
    with pytest.raises(OSError, match="disk is full"):
        running.get(timeout=5)


def test_what_was_under_way_when_a_run_stops_is_recorded():
    engine, kept = Engine(), []
    at_work = dispatcher(engine, 3, lambda record, seen: kept.append(record.error.kind))
    running = gevent.spawn(at_work.run, ())
    while len(engine.came) < 3:
        gevent.sleep(0.001)
    at_work.stop()
    assert kept == ["interrupted"] * 3
    running.get(timeout=5)
