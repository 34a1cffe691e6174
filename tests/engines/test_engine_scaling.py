"""Ray Serve's autoscaler asks us: what it hands over, what comes back, and that nothing odd scales to zero."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram
from ray.serve.config import AutoscalingConfig

from serving.engines import scaling
from serving.engines.scaling import NOWHERE, Board, FollowLoad, Listen, Place
from serving.engines.telling import Teller, engine_limits
from serving.fleet.autoscaling.told import GatewayTold, ReplicaTold
from serving.fleet.catalogue import load
from serving.telemetry.scaling import ScalingMeter

ROOT = Path(__file__).resolve().parents[2]
FITTED = {"fixed": 0.01, "token": 1e-4, "attention": 0.0, "cache_s": 0.0, "kv_tokens": 8192.0, "batched_tokens": 512.0,
          "start_s": 10.0, "price": 40.0}


class Rig:
    """A model from 0 to 3 replicas of 4 seats, two gateways, and a clock."""

    def __init__(self, **told: Any) -> None:
        self.now, self.board, self.replicas = 1_000.0, Board(), dict[str, ReplicaTold]()
        self.gateways = {"g1": GatewayTold(), "g2": GatewayTold()}
        self.silent: set[str] = set()
        self.target = 0
        self.meter = ScalingMeter()
        spec = {"zero_after_s": 60.0, "margin": 0.0, **told.pop("spec", {})}
        self.policy = FollowLoad("qwen", told.pop("least", 0), told.pop("most", 3), 4,
                                 {"ttft_ms": 1500, "tpot_ms": 80}, spec, told.pop("fleet_cap", None),
                                 board=self.board, meter=self.meter)
        self.listen = Listen(self.board)

    def context(self, target: int, told: dict[str, dict[str, float]], silent: set[str]) -> SimpleNamespace:
        """What Ray would hand over."""
        raw: dict[str, dict[str, Any]] = {}
        for name, numbers in told.items():
            for key, value in numbers.items():
                at = self.now - (100 if name in silent else 1)
                raw.setdefault(key, {})[name] = [SimpleNamespace(value=0.0, timestamp=at - 2),
                                                 SimpleNamespace(value=value, timestamp=at)]
        return SimpleNamespace(current_time=self.now, target_num_replicas=target, current_num_replicas=len(told),
                               running_replicas=list(told), raw_metrics=raw, total_num_requests=0)

    def tick(self, seconds: float = 2.0) -> int:
        """Some time later, Ray asks; what it is told it does."""
        self.now += seconds
        gateways = {name: g.numbers("qwen") for name, g in self.gateways.items()}
        assert self.listen(self.context(2, gateways, self.silent))[0] == 2
        replicas = {name: r.numbers() for name, r in self.replicas.items()}
        self.target, state = self.policy(self.context(self.target, replicas, self.silent))
        assert state == {}
        return self.target

    def arrive(self, count: int, **of: float) -> None:
        """So many more requests at the second gateway."""
        self.gateways["g2"] = GatewayTold(self.gateways["g2"].arrived + count, **of)

    def counted(self, reason: str) -> float:
        """Decisions of a reason."""
        return self.meter._metrics["flotilla_autoscale_decisions_total"].labels("qwen", reason)._value.get()


def test_wakes_grows_and_goes_back_to_zero_for_stated_reasons() -> None:
    rig = Rig()
    assert [rig.tick() for _ in range(20)][-1] == 0
    rig.arrive(1, queued=1)
    assert rig.tick() == 1 and rig.counted("wake") == 1
    rig.replicas["a"] = ReplicaTold(**FITTED)
    made = 0
    for _ in range(40):  # 2 a second, and one replica takes about 1.9 of 200 tokens with 4 seats
        made += 4
        rig.arrive(4)
        rig.replicas["a"] = ReplicaTold(running=4, busy_s=rig.now, finished=made, prompt=50.0 * made,
                                        computed=50.0 * made, computed_squared=2_500.0 * made, output=200.0 * made,
                                        **FITTED)
        rig.tick()
    assert rig.target == 2 and rig.counted("demand") == 1
    rig.replicas["b"] = rig.replicas["a"] = ReplicaTold(busy_s=rig.now, finished=made, **FITTED)
    seen = [rig.tick() for _ in range(120)]
    assert seen[0] == 2 and seen[-1] == 0 and sorted(seen, reverse=True) == seen and 1 in seen
    assert rig.counted("to_zero") == 1


def test_seats_decide_until_a_step_model_is_known() -> None:
    rig = Rig(least=1, spec={"fill": 1.0})
    rig.target = 1
    rig.replicas["a"] = ReplicaTold(running=4, waiting=3)
    rig.arrive(9, queued=2)
    assert rig.tick() == 3


@pytest.mark.parametrize("who", [{"a"}, {"g1"}, {"g1", "g2"}])
def test_silence_changes_nothing_and_is_counted(who: set[str]) -> None:
    rig = Rig()
    rig.target, rig.replicas["a"] = 1, ReplicaTold(**FITTED)
    rig.silent = who
    assert {rig.tick() for _ in range(100)} == {1}
    assert rig.counted("stale") == 100 and rig.counted("to_zero") == 0
    rig.silent = set()
    assert [rig.tick() for _ in range(100)][-1] == 0


def test_no_gateway_at_all_and_a_policy_that_fails_change_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.target, rig.gateways = 2, {}
    assert {rig.tick() for _ in range(100)} == {2}
    monkeypatch.setattr(rig.policy, "_load", lambda *_: 1 / 0)
    assert {rig.tick() for _ in range(3)} == {2}


def test_gateways_and_replicas_that_come_and_go_do_not_count_as_demand() -> None:
    rig = Rig(least=1)
    rig.target, rig.replicas["a"] = 1, ReplicaTold(**FITTED)
    rig.gateways["g1"] = GatewayTold(1_000_000)  # it has been there for long; we have not
    for _ in range(30):
        rig.tick()
    del rig.gateways["g1"]
    rig.tick()
    rig.gateways["g1"] = GatewayTold(0)
    assert {rig.tick() for _ in range(30)} == {1}


def test_a_fleets_cap_leaves_the_rest_to_who_comes_first() -> None:
    rig = Rig(least=1, spec={"fill": 1.0, "max_usd_per_hour": 80e-9})
    rig.target, rig.replicas["a"] = 1, ReplicaTold(running=4, waiting=30, price=40.0)
    assert rig.tick() == 2 and rig.counted("cost_cap") == 1


def test_ray_takes_the_configurations() -> None:
    fleet = load(ROOT / "deployments/fleets/laptop-scaling.yaml")
    made = AutoscalingConfig(**scaling.of_model(fleet, "qwen", Place("/run/x", "/run/y.log")))
    assert (made.min_replicas, made.max_replicas) == (0, 2)
    decides = made.policy.get_policy()(**made.policy.policy_kwargs | {"place": {}})
    gateways = AutoscalingConfig(**scaling.of_gateways(fleet)["autoscaling_config"])
    hears = gateways.policy.get_policy()()
    assert decides._policy._board is hears._policy._board is scaling.BOARD, "what one hears, the other must see"


def test_without_our_policy_nothing_but_zero_and_one_is_decided() -> None:
    fleet = load(ROOT / "deployments/fleets/h200-production.yaml")
    assert scaling.of_gateways(fleet) == {"num_replicas": fleet.gateway.replicas}
    for name, spec in fleet.models.items():
        made = AutoscalingConfig(**scaling.of_model(fleet, name, NOWHERE))
        assert (made.min_replicas, made.max_replicas) == (spec.replicas.min, spec.replicas.max)
        assert made.policy.is_default_policy_function() == (spec.replicas.min > 0)


class Told:
    told = ReplicaTold(running=2)


def test_a_replica_tells_flat_numbers_whatever_vllm_says() -> None:
    registry = CollectorRegistry()
    cache = Gauge("vllm:kv_cache_usage_perc", "", ["engine"], registry=registry)
    first = Histogram("vllm:time_to_first_token_seconds", "", ["engine"], registry=registry)
    teller = Teller(Told(), 100.0, 50.0, registry)
    cache.labels("0").set(0.25)
    teller.numbers(0.0)
    for seconds in (0.1, 0.3):
        first.labels("0").observe(seconds)
    told = ReplicaTold.of(numbers := teller.numbers(10.0))
    assert told is not None and all(type(v) is float for v in numbers.values())
    assert (told.running, told.cache, told.kv_tokens, told.tpot_s) == (2.0, 0.25, 100.0, -1.0)
    assert told.ttft_s == pytest.approx(0.2)
    assert ReplicaTold.of({k: v for k, v in numbers.items() if k != "flotilla_waiting"}) is None
    broken = Teller(Told(), registry=SimpleNamespace())  # type: ignore[arg-type]
    assert ReplicaTold.of(broken.numbers(0.0)) == Told.told
    assert engine_limits(None) == (-1.0, -1.0) and Teller(Told())._registry is REGISTRY
