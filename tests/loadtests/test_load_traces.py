"""Traces: every format is read, scaled and replayed; what is wrong is named with its line."""

from __future__ import annotations

import json

import pytest
from load_samples import make_scenario

from loadtests.arrivals import schedule
from loadtests.errors import ScenarioError
from loadtests.traces import read_trace
from loadtests.workloads import Prompts

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" "2023-11-16 18:15:46.6805900,374,44\n" \
        "2023-11-16 18:15:50.6805900,396,109\n"
AZURE_2024 = AZURE.replace("6805900", "680590+00:00").replace("2023-11-16", "2024-05-10")
BURST = "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n7,GPT-4,9,0\n9,GPT-4,417,276\n"
OURS = '{"at_s": 1, "input_tokens": 9, "output_tokens": 3}\n{"at_s": 2.5, "input_tokens": 8, "output_tokens": 4}\n'


@pytest.mark.parametrize(("kind", "text", "sizes", "gap"), [
    ("azure", AZURE, [(374, 44), (396, 109)], 4.0), ("azure", AZURE_2024, [(374, 44), (396, 109)], 4.0),
    ("burstgpt", BURST, [(472, 18), (417, 276)], 4.0), ("jsonl", OURS, [(9, 3), (8, 4)], 1.5),
])
def test_formats(tmp_path, kind, text, sizes, gap):
    path = tmp_path / "t"
    path.write_text(text)
    rows = read_trace(path, kind)
    assert [(row.input_tokens, row.output_tokens) for row in rows] == sizes
    assert [row.at_s for row in rows] == pytest.approx([0.0, gap])


def test_hash_ids_become_shared_prefixes_and_scaling_keeps_them(tmp_path):
    rows = [{"timestamp": t, "input_length": 1200, "output_length": 8, "hash_ids": ids}
            for t, ids in ((0, [1, 2, 3]), (2000, [1, 2, 4]))]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trace = {"process": "trace", "file": "m.jsonl", "format": "mooncake", "speed": 2.0, "input_scale": 0.5}
    scenario = make_scenario(arrivals=trace, models={"a": {}})
    one, other = schedule(scenario, tmp_path)
    assert other.at_s == pytest.approx(1.0) and one.turns[0].prompt_tokens == 600
    texts = [Prompts(scenario).user(arrival.turns[0])["content"].split() for arrival in (one, other)]
    shared = next(n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    assert 2 * 256 * 0.75 - 2 <= shared < len(texts[0])


@pytest.mark.parametrize(("kind", "text", "words"), [
    ("azure", "a,b\n1,2\n", "no column 'TIMESTAMP'"), ("azure", AZURE + "x,1,2\n", ":4: 'x' is no timestamp"),
    ("jsonl", OURS + "{", ":3: not JSON"), ("jsonl", '{"at": 1}\n', "unknown key 'at'"),
    ("jsonl", "", "no requests"), ("burstgpt", BURST + "1,m,2.5,1\n", "no whole number"),
])
def test_bad_traces_are_named_with_their_line(tmp_path, kind, text, words):
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=words.replace("(", r"\(")):
        read_trace(path, kind)
