"""What one look says of the fleet: models' states, what is saved, what cannot be seen."""

from __future__ import annotations

from typing import Any

import pytest
from fake_fleet import FakeFleet

from serving.console.looking import Look, Run
from serving.console.snapshot import Failure, Model, Slow, Snapshot

NOW = 1_000.0


class Rig:
    """A look whose ledger answers before the metrics are read."""

    def __init__(self) -> None:
        self.fake, self.run, self.now = FakeFleet(), Run({}, {}), NOW
        self.slow = Slow({}, ())
        self.look = Look(self.fake.fleet, self.fake.scrape, lambda: self.slow, lambda: self.run, clock=lambda: self.now)
        self.look._slow.fresh(1)

    def twice(self, **served: Any) -> Snapshot:
        """What two looks see, with something served between them."""
        self.look()
        self.fake.serve("qwen", 10, **served)
        self.look._slow.fresh(1)
        return self.look()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def of(seen: Snapshot, name: str) -> Model:
    return next(m for m in seen.models if m.name == name)


def test_states_and_why(rig: Rig) -> None:
    rig.run = Run({"kimi": "its weights are missing"}, {})
    seen = rig.look()
    assert {m.name: m.state for m in seen.models} == {
        "qwen": "serving", "llama": "serving", "kimi": "failed", "embed": "asleep"}
    assert of(seen, "kimi").why == "its weights are missing"
    rig.fake.replicas = {"qwen": 2}
    rig.slow = Slow({"kimi": 1, "embed": 1}, ())
    rig.run = Run({}, {})
    rig.look._slow.fresh(1)
    seen = rig.look()
    assert {m.name: m.state for m in seen.models} == {
        "qwen": "serving", "llama": "down", "kimi": "starting", "embed": "starting"}
    assert "1 should" in of(seen, "llama").why


def test_random_weights_are_said_to_be_unless_others_were_given(rig: Rig) -> None:
    assert {m.name: m.noise for m in rig.look().models} == {"qwen": True, "llama": False, "kimi": False, "embed": False}
    rig.run = Run({}, {"qwen": "Qwen/Qwen3-0.6B"})
    assert not of(rig.look(), "qwen").noise
    assert {m.name: m.chats for m in rig.look().models}["embed"] is False, "there is nothing to talk to"


def test_a_look_says_what_top_says(rig: Rig) -> None:
    seen = rig.twice(ttft_s=0.7)
    qwen = of(seen, "qwen")
    assert qwen.late and qwen.ttft_p50_s is not None and qwen.ttft_p50_s > qwen.ttft_slo_s == 0.5
    assert qwen.usd_per_request == pytest.approx(2e-6) == seen.usd_per_request
    assert qwen.tokens_per_s == pytest.approx(20 * qwen.requests_per_s)
    assert seen.trace()["models"]["qwen"] == (round(qwen.tokens_per_s, 2), qwen.ttft_p50_s, 0, qwen.usd_per_hour)


def test_a_model_is_held_against_its_comparators_and_the_fleet_by_role(rig: Rig) -> None:
    seen = rig.twice()
    assert [(c.role, round(c.saving, 3)) for c in of(seen, "qwen").compared if c.saving is not None] == [
        ("same_model_hosted", -0.25), ("cheapest_proprietary", 0.75), ("frontier", 0.975)]
    assert [(s.role, s.name) for s in seen.saved] == [
        ("same_model_hosted", "hosted/qwen"), ("cheapest_proprietary", "cheap-api"), ("frontier", "big-api")]
    rig.fake.serve("llama", 10)
    seen = rig.look()
    assert [(s.role, s.name) for s in seen.saved] == [
        ("same_model_hosted", "2 models"), ("cheapest_proprietary", "cheap-api")], "llama has no frontier comparator"


def test_the_overhead_counts_against_the_fleets_saving(rig: Rig) -> None:
    before = rig.twice().saved[1].saving
    rig.fake.more = 'flotilla_cost_usd_total{model="",tenant="",bucket="overhead"} 1\n'
    after = rig.look().saved[1].saving
    assert before == pytest.approx(0.75) and after is not None and after < -1000


def test_promises_are_held_against_what_was_counted(rig: Rig) -> None:
    rig.fake.serve("qwen", 99, 0.7)
    seen = rig.twice(ttft_s=0.1)
    assert [(p.model, p.tenant) for p in seen.promises] == [
        ("qwen", ""), ("qwen", "shop"), ("qwen", "search"), ("llama", ""), ("kimi", ""), ("embed", "")]
    everyone, shop = ({kept.promise: kept for kept in p.promises} for p in seen.promises[:2])
    assert everyone["ttft"].left == pytest.approx(1 - 99 / 109 / 0.05), "0.7 s are more than 500 ms"
    assert (shop["ttft"].at_most_s, shop["ttft"].eligible, shop["ttft"].left) == (0.8, 109, 1.0), "its own promise"


def test_what_cannot_be_seen_is_said_and_the_last_figures_stay(rig: Rig) -> None:
    seen = rig.twice()
    rig.fake.away, rig.now = "connection refused", NOW + 9
    then = rig.look()
    assert "cannot be read: connection refused" in then.trouble and then.models == seen.models and then.at == NOW + 9
    rig.fake.away = ""
    assert rig.look().trouble == ""


def test_a_ledger_that_is_away_makes_replicas_unknown_not_down(rig: Rig) -> None:
    rig.fake.ledger_up = 0
    seen = rig.look()
    assert seen.ledger_up is False and {m.state for m in seen.models} == {"unknown"}


def test_slow_facts_are_those_known_last(rig: Rig) -> None:
    rig.slow = Slow({}, (Failure("flo-1", 5.0, "shop", "qwen", "chat_completions", 503, "failed"),))
    rig.look._slow.fresh(1)
    assert rig.look().failures[0].code == 503
