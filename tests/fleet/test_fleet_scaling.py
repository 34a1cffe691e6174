"""What a fleet file says about scaling, and what of it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet import digests
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


def test_scaling_differently_restarts_no_engine(tmp_path: Path) -> None:
    few, more = load(write(tmp_path)), load(write(tmp_path, with_scaling(FULL)))
    assert digests.of_model(few, "llama") == digests.of_model(more, "llama")
    assert digests.of_gateway(few) != digests.of_gateway(more)
