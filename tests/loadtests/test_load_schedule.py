"""The schedule as lines for other programs: what a load test would send, token by token and second by second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from load_samples import CHAT, CONVERSATION, scenario_document
from test_load_traces import AZURE, AZURE_2024, BURST, OURS

import loadtests
from loadtests.arrivals import schedule
from loadtests.scenario import load_scenario
from loadtests.schedule import main

PACKAGE = Path(loadtests.__file__).parent
DATA, SCENARIOS = PACKAGE / "data", PACKAGE / "scenarios"
MOONCAKE = '{"timestamp": 0, "input_length": 700, "output_length": 8, "hash_ids": [3, 4]}\n' \
           '{"timestamp": 1500, "input_length": 600, "output_length": 9, "hash_ids": [3, 5]}\n'


@pytest.fixture
def lines(capsys):
    def of(*arguments: object) -> list[dict]:
        assert main([str(argument) for argument in arguments]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return of


@pytest.fixture
def refusal(capsys):
    def of(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return of


def scenario(folder: Path, **changes) -> Path:
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(scenario_document(**changes)))
    return file


def test_a_scenario_is_what_its_load_test_sends(lines, tmp_path):
    file = scenario(tmp_path)
    found, arrivals = lines(file), schedule(load_scenario(file))
    firsts = {line["session"]: line for line in reversed(found)}
    assert len(arrivals) > 30 and len(firsts) == len(arrivals)
    for arrival in arrivals:
        first = firsts[arrival.index + 1]
        assert (first["at_s"], first["model"]) == (arrival.at_s, arrival.model)
        assert first["input_tokens"] == arrival.system_tokens + arrival.turns[0].prompt_tokens
    assert len(found) == sum(len(arrival.turns) for arrival in arrivals)
    assert lines(file) == found


def test_a_turn_sends_all_that_was_said_before(lines, tmp_path):
    found = lines(scenario(tmp_path, models={"a": {"users": [CONVERSATION]}}))
    talks: dict[int, list[dict]] = {}
    for line in found:
        talks.setdefault(line["session"], []).append(line)
    assert len(talks) > 10
    for talk in talks.values():
        # 30 shared, 10 asked and 4 answered in each turn
        assert [line["input_tokens"] for line in talk] == [40, 54, 68]
        assert [line["output_tokens"] for line in talk] == [4, 4, 4]
        assert sorted(line["at_s"] for line in talk) == [line["at_s"] for line in talk]


@pytest.mark.parametrize("name", ["laptop-mix", "shopping-assistant", "customer-service", "reasoning-heavy", "spike"])
def test_scenarios_that_come_with_it_have_a_schedule(lines, name):
    file = SCENARIOS / f"{name}.yaml"
    found = lines(file)
    assert len(found) > 20 and {line["model"] for line in found} <= set(load_scenario(file).models)
    assert min(line["input_tokens"] for line in found) > 0


@pytest.mark.parametrize(("text", "gap", "sizes"), [
    (AZURE, 4.0, [(374, 44), (396, 109)]), (AZURE_2024, 4.0, [(374, 44), (396, 109)]),
    (BURST, 4.0, [(472, 18), (417, 276)]), (OURS, 1.5, [(9, 3), (8, 4)]), (MOONCAKE, 1.5, [(700, 8), (600, 9)]),
])
def test_a_trace_is_known_by_its_first_line(lines, tmp_path, text, gap, sizes):
    (tmp_path / "trace").write_text(text)
    found = lines(tmp_path / "trace")
    assert [(line["input_tokens"], line["output_tokens"]) for line in found] == sizes
    assert [line["at_s"] for line in found] == pytest.approx([0.0, gap])
    assert {line["session"] for line in found} == {0}


def test_blocks_travel_from_a_trace_and_through_a_scenario(lines, tmp_path):
    (tmp_path / "m.jsonl").write_text(MOONCAKE)
    assert [(line["blocks"], line["block_tokens"]) for line in lines(tmp_path / "m.jsonl")] == [([3, 4], 512),
                                                                                              ([3, 5], 512)]
    replay = {"process": "trace", "file": "m.jsonl", "format": "mooncake", "input_scale": 0.5}
    found = lines(scenario(tmp_path, arrivals=replay, models={"a": {}}))
    assert [(line["blocks"], line["block_tokens"]) for line in found] == [([3, 4], 256), ([3, 5], 256)]


def test_servegen_is_drawn_for_a_length_from_a_seed(lines):
    folder = DATA / "servegen-mm-image"
    # its night is empty
    one = lines(folder, "--length", 27_000, "--seed", 1)
    assert len(one) > 10 and 24_600 <= one[0]["at_s"] and one[-1]["at_s"] < 27_000
    assert lines(folder, "--length", 27_000, "--seed", 1) == one
    assert lines(folder, "--length", 27_000, "--seed", 2) != one


def test_what_cannot_be_read_is_named(refusal, tmp_path):
    (tmp_path / "trace").write_text("when,how long\n1,2\n")
    assert "no known trace; say --format azure|mooncake|burstgpt|servegen|jsonl" in refusal(tmp_path / "trace")
    assert "no column 'TIMESTAMP'" in refusal(tmp_path / "trace", "--format", "azure")
    assert "cannot be read" in refusal(tmp_path / "missing.csv")
    assert "did you mean 'warmup_s'" in refusal(scenario(tmp_path, warmupp_s=1))


def test_closed_loops_are_left_out_and_alone_have_no_schedule(lines, refusal, tmp_path):
    closed = {"process": "closed", "users": 3}
    both = {"a": {"users": [CHAT], "arrivals": closed}, "b": {"users": [CHAT]}}
    assert {line["model"] for line in lines(scenario(tmp_path, models=both))} == {"b"}
    assert "closed loop, which has no schedule" in refusal(scenario(tmp_path, arrivals=closed))
