"""The conversations of the routing benchmark, and reading the engines' counters."""

from __future__ import annotations

import json

import pytest

from serving.bench.client import BadLoad
from serving.bench.routing import Counters, Talks, bodies, counters

METRICS = """\
# HELP vllm:prefix_cache_queries_total Prefix cache queries
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="qwen"} 1200.0
vllm:prefix_cache_hits_total{engine="0",model_name="qwen"} 9e+02
vllm:request_success_total{engine="0",finished_reason="length",model_name="qwen"} 7.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="qwen"} 2.0
"""


def test_one_seed_gives_the_same_conversations_and_another_others() -> None:
    assert bodies(Talks(), 1) == bodies(Talks(), 1)
    assert bodies(Talks(), 1) != bodies(Talks(), 2)


def test_a_turn_repeats_all_that_came_before() -> None:
    talks = Talks(sessions=5, turns=3, groups=2)
    texts, scripts = bodies(talks, 7)
    assert len(texts) == 15 and [len(s) for s in scripts] == [3] * 5
    for script in scripts:
        turns = [json.loads(texts[i])["messages"] for i in script]
        for earlier, later in zip(turns, turns[1:], strict=False):
            assert later[: len(earlier)] == earlier and len(later) == len(earlier) + 2
    systems = [json.loads(texts[s[0]])["messages"][0]["content"] for s in scripts]
    assert len(set(systems)) == 2
    firsts = {json.loads(texts[s[0]])["messages"][1]["content"] for s in scripts}
    assert len(firsts) == 5


def test_counters_are_added_over_labels() -> None:
    assert counters(METRICS) == Counters(1200.0, 900.0, 9.0)
    with pytest.raises(BadLoad, match="vllm:request_success_total"):
        counters(METRICS.rpartition("vllm:request_success_total")[0].rpartition("vllm:request_success_total")[0])
