"""The shipped list of vLLM's arguments is the installed vLLM's, and its own parser agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.cli.fleet import ask_vllm
from serving.engines import arguments
from serving.errors import ConfigError
from serving.fleet.catalogue import load
from serving.fleet.models import engineargs, entries

ROOT = Path(__file__).parents[2]


def test_the_shipped_list_is_what_would_be_written_now() -> None:
    assert engineargs.table() == arguments.build(), "run: python -m serving.engines.arguments"


def test_vllms_parser_takes_what_the_catalogue_says() -> None:
    catalogue = entries.load(ROOT / "deployments" / "catalogue")
    asked = {str(args): args for name in catalogue for variant in catalogue[name].variants
             if (args := {**catalogue[name].args, **variant.args})}
    assert {text: arguments.parse(args) for text, args in asked.items()} == dict.fromkeys(asked)


@pytest.mark.parametrize(("args", "says"), [
    ({"enable_prefix_cashing": True}, "enable-prefix-cashing"),
    ({"kv_cache_dtype": "fp88"}, "invalid choice: 'fp88'"),
    ({"max_num_batched_tokens": "many"}, "many"),
    ({"speculative_config": "no json"}, "no json")])
def test_vllms_parser_refuses_what_is_not_its(args: dict[str, object], says: str) -> None:
    assert says in (arguments.parse(args) or "") and list(engineargs.troubles(args))


def test_a_fleet_is_asked_model_by_model() -> None:
    found = load(ROOT / "deployments/fleets/open-models.yaml")
    ask_vllm(found)
    seed = found.models["seed"]
    wrong = seed.engine.model_copy(update={"args": {"moe_backend": "none of them"}})
    broken = found.model_copy(update={"models": {"seed": seed.model_copy(update={"engine": wrong})}})
    with pytest.raises(ConfigError, match="models.seed.engine: vLLM's own parser refuses"):
        ask_vllm(broken)
