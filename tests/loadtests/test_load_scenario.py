from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from load_samples import make_scenario, scenario_document

import loadtests
from loadtests.errors import ScenarioError
from loadtests.scenario import Overrides, load_scenario, scenario_from, with_overrides

SHIPPED = sorted((Path(loadtests.__file__).parent / "scenarios").glob("*.yaml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def test_there_is_a_laptop_mix():
    assert "laptop-mix" in [path.stem for path in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_load_and_survive_a_round_trip(path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario_from(scenario.model_dump(mode="json")) == scenario


def test_laptop_mix_is_what_the_demo_needs():
    scenario = load_scenario(next(path for path in SHIPPED if path.stem == "laptop-mix"))
    assert {name: model.weight for name, model in scenario.models.items()} == {
        "qwen": 3,
        "deepseek-r1": 2,
        "llama": 2,
    }
    assert scenario.duration_s == 60
    assert {users.kind for model in scenario.models.values() for users in model.users} == {
        "chat",
        "conversation",
    }


GOOD = yaml.safe_dump(scenario_document(), sort_keys=False)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("warmup_s:", "warm_up_s:", ["unknown key 'warm_up_s'", "did you mean 'warmup_s'?", "s.yaml:3"]),
        ("rate_per_s:", "rates_per_s:", ["did you mean 'rate_per_s'?", "arrivals"]),
        ("prompt_tokens:", "promt_tokens:", ["did you mean 'prompt_tokens'?", "models.a.users.0"]),
        ("weight: 3", "weight: -3", ["models.a.weight", "greater than 0", "(got -3)"]),
        ("seed: 1", "seed: '1'", ["seed", "valid integer"]),
        ("kind: chat", "kind: chatt", ["kind 'chatt' does not exist", "did you mean 'chat'?"]),
        ("duration_s: 10.0", "duration_s: 10.0\nduration_s: 20", ["s.yaml:3", "'duration_s' is given twice"]),
        ("warmup_s: 0.0", "warmup_s: 10", ["leaves nothing of duration_s"]),
        ("low: 5", "low: 50", ["low (50) is above high (20)"]),
        ("name: test", "name: [", ["s.yaml:", "not YAML"]),
    ],
)
def test_errors_name_key_line_and_the_nearest_right_name(tmp_path, before, after, expected):
    assert before in GOOD
    with pytest.raises(ScenarioError) as caught:
        load_scenario(written(tmp_path, GOOD.replace(before, after, 1)))
    for part in expected:
        assert part in str(caught.value)


def test_the_line_is_the_line_of_the_key(tmp_path):
    lines = GOOD.splitlines()
    at = next(number for number, line in enumerate(lines) if "output_tokens" in line)
    lines[at] = lines[at].replace("output_tokens", "output_tokns")
    with pytest.raises(ScenarioError, match=rf"s\.yaml:{at + 1}: .*unknown key 'output_tokns'"):
        load_scenario(written(tmp_path, "\n".join(lines)))


def test_a_missing_file_is_a_scenario_error(tmp_path):
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "none.yaml")


def test_extra_body_may_not_take_what_the_load_test_sets():
    model = scenario_document()["models"]["a"] | {"extra_body": {"stream": False}}
    with pytest.raises(ScenarioError, match="extra_body may not set stream"):
        scenario_from(scenario_document(models={"a": model}))


def test_overrides_change_only_what_is_given():
    scenario = make_scenario(warmup_s=2.0)
    assert with_overrides(scenario, Overrides()) == scenario
    changed = with_overrides(scenario, Overrides(duration_s=5.0, rate_per_s=9.0, seed=4))
    assert (changed.duration_s, changed.arrivals.rate_per_s, changed.seed) == (5.0, 9.0, 4)
    assert changed.warmup_s == 2.0
    assert with_overrides(scenario, Overrides(duration_s=3.0)).warmup_s == 1.5


def test_scenarios_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        make_scenario().seed = 3
