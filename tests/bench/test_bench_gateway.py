"""How the gateway's benchmark goes about it: rounds, order, failures. Servers and client are stood in for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.bench import gateway
from serving.bench.arms import Arm
from serving.bench.children import Launch
from serving.bench.client import BadLoad, Load, Seen
from serving.errors import StartFailed


class World:
    """Arms that start at once, or do not, and a client that says what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.loaded: list[tuple[str, int]] = []
        self.stopped: list[str] = []
        self.bad: set[tuple[str, int]] = set()  # arm and number of streams
        self.dead: set[str] = set()
        self.noise: Iterator[float | None] = iter(())  # CPU that others took in the runs to come; None: it dies
        self._busy = 0.0
        self.ports: dict[int, str] = {}
        self.tmp_path = tmp_path
        monkeypatch.setattr(gateway.checkpoints, "make", lambda family, root: tmp_path)
        monkeypatch.setattr(gateway, "Child", self._child)
        monkeypatch.setattr(gateway, "apply", self._apply)
        monkeypatch.setattr(gateway, "busy", lambda: self._busy)
        monkeypatch.setattr(gateway, "ARMS", {n: self.arm(n) for n in ("vllm-serve", "ours", "theirs")})

    def arm(self, name: str) -> Arm:
        def launch(place: Any) -> Launch:
            self.ports[place.port] = name
            return Launch((), {}, place.folder, f"http://127.0.0.1:{place.port}", "/v1", {}, "{}")

        return Arm(name, name, launch)

    def _child(self, name: str, launch: Launch) -> Any:
        def wait_ready() -> None:
            if name in self.dead:
                raise StartFailed(f"{name} does not start")

        return SimpleNamespace(name=name, wait_ready=wait_ready, cpu=lambda roles: {},
                               stop=lambda: self.stopped.append(name))

    def _apply(self, load: Load) -> Seen:
        name, streams = self.ports[load.port], load.streams
        if streams != 16:  # the warm-up
            self.loaded.append((name, streams))
            noise = next(self.noise, 0.0)
            if noise is None:
                raise BadLoad("it died")
            self._busy += noise
        if (name, streams) in self.bad:
            raise BadLoad("status 500")
        count = len(load.scripts)
        return Seen(1.0, 0.0, [0.01] * count, [0.1] * count, [66] * count, [64] * count, [9] * count, [0] * count)

    def measure(self, streams: tuple[int, ...] = (1,), rounds: int = 1) -> dict[str, Any]:
        plan = gateway.Plan(tuple(gateway.ARMS.values()), streams, rounds, self.tmp_path, self.tmp_path)
        return gateway.measure(plan, lambda note: None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_each_arm_takes_turns_with_the_base_and_every_second_round_goes_in_reverse(world: World) -> None:
    report = world.measure(rounds=2)
    pairs = [["vllm-serve", name, name, "vllm-serve"] for name in ("ours", "theirs")]
    assert [name for name, _ in world.loaded] == pairs[0] + pairs[1]
    assert world.stopped == ["ours", "theirs", "vllm-serve"]  # an arm is gone before the next comes up
    assert {r["name"]: r["rounds"] for r in report["arms"]} == {"vllm-serve": 4, "ours": 2, "theirs": 2}
    assert all(r["tokens_per_s_ratio"] == 1.0 for r in report["arms"])


def test_an_arm_that_does_not_start_is_shown_with_its_reason(world: World) -> None:
    world.dead = {"theirs"}
    report = world.measure()
    assert report["failed"] == [{"name": "theirs", "streams": None, "reason": "theirs does not start"}]
    assert {r["name"] for r in report["arms"]} == {"vllm-serve", "ours"}
    assert world.stopped == ["ours", "theirs", "vllm-serve"]


def test_an_invalid_run_costs_an_arm_that_level_and_no_other(world: World) -> None:
    world.bad = {("ours", 32)}
    report = world.measure((1, 32), rounds=2)
    assert report["failed"] == [{"name": "ours", "streams": 32, "reason": "status 500"}]
    assert [r["streams"] for r in report["arms"] if r["name"] == "ours"] == [1]
    assert world.loaded.count(("ours", 32)) == 1


def test_a_base_that_fails_costs_the_arm_beside_it_that_level_and_keeps_what_was_measured(world: World) -> None:
    world.noise = iter([0.0, 0.0, *[None] * 9])
    report = world.measure()
    assert [(f["name"], f["reason"]) for f in report["failed"]] == [("theirs", "vllm-serve beside it: it died")]
    assert {r["name"]: r["rounds"] for r in report["arms"]} == {"vllm-serve": 1, "ours": 1}


def test_without_the_base_there_is_no_report_and_nothing_runs_on(world: World) -> None:
    world.dead = {"vllm-serve"}
    with pytest.raises(StartFailed, match="vllm-serve, which all are compared with, failed: vllm-serve does not start"):
        world.measure()
    assert world.stopped == ["vllm-serve"] and world.loaded == []


def test_a_run_during_which_others_worked_is_repeated(world: World) -> None:
    world.noise = iter([0.9, 0.0])  # the first run of vllm-serve; its second is quiet
    report = world.measure()
    assert [name for name, _ in world.loaded] == ["vllm-serve", "vllm-serve", "ours", "vllm-serve", "theirs"]
    assert all(r["noisy_rounds"] == 0 for r in report["arms"])


def test_a_machine_that_is_never_quiet_is_reported_as_such(world: World) -> None:
    del gateway.ARMS["theirs"]
    world.noise = iter([0.9, 0.5, 0.7])
    report = world.measure()
    assert world.loaded.count(("vllm-serve", 1)) == 3
    base, ours = report["arms"]
    assert base["noisy_rounds"] == 1 and base["others_cores"] == 0.5
    assert ours["noisy_rounds"] == 0 and ours["others_cores"] == 0.5  # its ratio rests on that run


def test_ctrl_c_stops_every_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gateway, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.measure()
    assert world.stopped == ["ours", "vllm-serve"]
