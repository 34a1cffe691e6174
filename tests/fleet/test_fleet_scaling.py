"""What a fleet file says about scaling, and what of it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet import digests
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.autoscaling.spec import ScalingSpec
from serving.fleet.catalogue import load

HEAD = "    source: org/llama\n"
FULL = """\
    replicas: {min: 0, max: 3}
    scaling:
      spares: 1
      zero_after_s: 60
      cold_wait_s: 120
      schedule: [{least: 2, start: "08:00", end: "18:00", days: [mon, tue]}]
      max_usd_per_hour: 0.1
      priority: 5
"""


def with_scaling(more: str, fleet: str = "") -> str:
    """The sample fleet with more about llama and about the fleet."""
    return FLEET.replace(HEAD, HEAD + more).replace("tenants:\n", f"{fleet}tenants:\n")


def test_everything_that_it_can_say(tmp_path: Path) -> None:
    fleet = load(write(tmp_path, with_scaling(FULL, "scaling: {max_usd_per_hour: 1.5}\n")))
    spec = fleet.models["llama"].scaling
    assert (spec.spares, spec.zero_after_s, spec.cold_wait_s, spec.priority) == (1, 60.0, 120.0, 5)
    assert spec.schedule[0].least == 2 and spec.policy == fleet.models["qwen"].scaling.policy == "fixed"
    assert float(fleet.scaling.max_usd_per_hour or 0) == 1.5


@pytest.mark.parametrize(
    ("more", "fleet", "part", "words"),
    [
        ("    replicas: {min: 3, max: 2}\n", "", "replicas: {min: 3", ["max (2)", "min (3)"]),
        ("    replicas: {min: 1, max: 2}\n    scaling: {spares: 2}\n", "", "spares: 2", ["2 warm", "at least 3"]),
        ("    replicas: {min: 1, max: 2}\n    scaling: {schedule: [{least: 4}]}\n", "", "least: 4", ["4 is above"]),
        ("    replicas: {min: 2, max: 2}\n    scaling: {max_usd_per_hour: 0.05}\n", "", "0.05",
         ["0.05", "2 x 0.0416 = 0.0832"]),
        ("    replicas: {min: 0, max: 2}\n    scaling: {max_usd_per_hour: 0.01}\n", "", "0.01", ["1 x 0.0416"]),
        ("", "scaling: {max_usd_per_hour: 0.1}\n", "scaling: {max", ["0.1", "qwen 1 x 0.0832", "llama 1 x 0.0416",
                                                                    "0.1248"]),
        ("    scaling: {spare: 1}\n", "", "spare: 1", ["spares"]),
        ("    scaling: {schedule: [{least: 1, start: '8'}]}\n", "", "start: '8'", ["start"]),
    ],
)
def test_what_cannot_be_is_told_with_its_place_and_the_numbers(tmp_path: Path, more: str, fleet: str, part: str,
                                                               words: list[str]) -> None:
    text = with_scaling(more, fleet)
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, text))
    said = str(error.value)
    assert f":{line_of(text, part)}" in said and all(word in said for word in words), said


DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
EVALUATION = (DEPLOYMENTS / "fleets/evaluation.yaml").read_text().replace("../", f"{DEPLOYMENTS}/").replace(
    "name: evaluation", f"name: evaluation\ncatalogue: {DEPLOYMENTS}/catalogue")


@pytest.mark.parametrize(("slo", "words"), [
    ("{ttft_ms: 2000, tpot_ms: 10}", ["tpot_ms", "10 ms is impossible", "at least 14", "H200", "however many"]),
    ("{ttft_ms: 9, tpot_ms: 60}", ["ttft_ms", "9 ms is impossible", "at least 14"]),
    ("{ttft_ms: 2000, tpot_ms: 60, tenants: {evaluation: {tpot_ms: 10}}}",
     ["slo.tenants.evaluation.tpot_ms", "10 ms is impossible"]),
    ("{ttft_ms: 15, tpot_ms: 15}", []),  # 70 GB by 4.8 TB/s: it could just be, for all that a data sheet says
])
def test_promises_beyond_the_data_sheet_are_refused_with_the_numbers(tmp_path: Path, slo: str,
                                                                     words: list[str]) -> None:
    text = EVALUATION.replace("slo: {ttft_ms: 2000, tpot_ms: 60}", f"slo: {slo}")
    (file := tmp_path / "fleet.yaml").write_text(text)
    if not words:
        assert load(file).models["llama"].slo.tpot_ms == 15
        return
    with pytest.raises(ConfigError) as error:
        load(file)
    said = str(error.value)
    assert f":{line_of(text, slo)}" in said and all(word in said for word in words), said


def test_drafts_may_beat_a_step_per_token(tmp_path: Path) -> None:
    text = EVALUATION.replace("slo: {ttft_ms: 2000, tpot_ms: 60}", "slo: {ttft_ms: 2000, tpot_ms: 10}\n    "
                              "engine: {args: {speculative_config: {method: ngram, num_speculative_tokens: 4}}}")
    (file := tmp_path / "fleet.yaml").write_text(text)
    assert load(file).models["llama"].slo.tpot_ms == 10


def test_what_our_rule_takes_can_be_said() -> None:
    assert SloRule(**ScalingSpec().rule) == SloRule()
    assert SloRule(**ScalingSpec(remember_s=900, follow=0.3, crowd=1, fill=0.5).rule) == SloRule(
        fill=0.5, remember_s=900, follow=0.3, crowd=1)


def test_scaling_differently_restarts_no_engine(tmp_path: Path) -> None:
    few, more = load(write(tmp_path)), load(write(tmp_path, with_scaling(FULL)))
    assert digests.of_model(few, "llama") == digests.of_model(more, "llama")
    assert digests.of_gateway(few) != digests.of_gateway(more)
