"""What the engines of `flotilla bench kv` are made from, and how their word is compared. Engines run in the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.bench import kv
from serving.errors import ConfigError
from serving.fleet.models import entries
from serving.fleet.models.architecture import describe

CATALOGUE = entries.load(Path(__file__).parents[2] / "deployments" / "catalogue")


@pytest.mark.parametrize("case", kv.CASES, ids=lambda case: case.entry)
def test_an_engine_has_the_published_attention_and_is_small(case: kv.Case) -> None:
    entry = CATALOGUE[case.entry]
    small = describe(kv.config_of(case, entry))
    own = {kind.kind: kind for kind in entry.size.cache}
    for kind in small.cache:
        of = own[kind.kind]
        assert (kind.heads, kind.width, kind.window) == (of.heads, of.width, of.window)
    assert small.parameters < 3e8 and len(own) == len(small.cache)


def test_a_wrong_formula_would_be_seen() -> None:
    case = kv.chosen(["llama/llama-3.1-8b"])[0]
    said = {"in_flight": 4096, "prefix_caching": True, "blocks": 256, "block_size": 32, "concurrency": 4.0,
            "tokens": 8192}
    config = kv.config_of(case, CATALOGUE[case.entry])
    assert kv.compare(case, config, said)["off"] == 0
    assert kv.compare(case, config | {"num_key_value_heads": 4}, said)["off"] > kv.LIMIT


def test_a_layout_that_is_not_measured_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen/qwen3-8b'"):
        kv.chosen(["qwen/qwen3-9b"])
