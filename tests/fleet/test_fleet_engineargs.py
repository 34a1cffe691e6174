"""Engine arguments are vLLM's, or the fleet file is refused with the nearest that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet.catalogue import load
from serving.fleet.models import engineargs, entries

ROOT = Path(__file__).parents[2]

# What the catalogue and vLLM's recipes use: speculative decoding, quantisation, prefix caching, chunked prefill,
# disaggregated prefill, expert parallelism
RIGHT: list[dict[str, Any]] = [
    {"speculative_config": {"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 3}},
    {"quantization": "fp8", "kv_cache_dtype": "fp8", "gpu_memory_utilization": 0.95},
    {"enable_prefix_caching": True, "enable_chunked_prefill": True, "max_num_batched_tokens": 8192},
    {"kv_transfer_config": {"kv_connector": "NixlConnector", "kv_role": "kv_both"}},
    {"enable_expert_parallel": True, "data_parallel_size": 8, "all2all_backend": "allgather_reducescatter"},
    {"runner": "pooling", "hf_overrides": {"architectures": ["A"]}, "enforce_eager": True, "block_size": None},
    {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}, "gpu_memory_utilization": 1},
]
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"enable_expert_paralel": True}, "enable_expert_paralel", "did you mean 'enable_expert_parallel'?"),
    ({"enable-prefix-caching": True}, "enable-prefix-caching", "did you mean 'enable_prefix_caching'?"),
    ({"quantization": "fp88"}, "quantization", "did you mean 'fp8'?"),
    ({"speculative_config": {"num_speculative_token": 3}}, "speculative_config.num_speculative_token",
     "did you mean 'num_speculative_tokens'?"),
    ({"kv_transfer_config": {"kv_connector": "NixlConector"}}, "kv_transfer_config.kv_connector",
     "did you mean 'NixlConnector'?"),
    ({"enable_chunked_prefill": "yes"}, "enable_chunked_prefill", "must be true or false; found 'yes'"),
    ({"max_num_batched_tokens": "8k"}, "max_num_batched_tokens", "must be a whole number; found '8k'"),
    ({"max_num_batched_tokens": True}, "max_num_batched_tokens", "must be a whole number; found True"),
    ({"gpu_memory_utilization": "0.9"}, "gpu_memory_utilization", "must be a number; found '0.9'"),
    ({"speculative_config": "mtp"}, "speculative_config", "must be a mapping; found 'mtp'"),
    ({"kv_cache_dtype": 8}, "kv_cache_dtype", "found 8"),
    ({"zzzzzzzz": 1}, "zzzzzzzz", "`vllm serve --help=all` lists them"),
]


@pytest.mark.parametrize("args", RIGHT)
def test_what_recipes_use_is_taken(args: dict[str, Any]) -> None:
    assert list(engineargs.troubles(args)) == []


@pytest.mark.parametrize(("args", "at", "says"), WRONG)
def test_what_vllm_would_refuse_is_refused(args: dict[str, Any], at: str, says: str) -> None:
    (path, text), = engineargs.troubles(args)
    assert ".".join(path) == at and says in text


@pytest.mark.parametrize("name", entries.load(ROOT / "deployments" / "catalogue"))
def test_every_variants_arguments_are_vllms(name: str) -> None:
    entry = entries.load(ROOT / "deployments" / "catalogue")[name]
    for variant in entry.variants:
        assert list(engineargs.troubles({**entry.args, **variant.args})) == []
    for kind in ("tool_call_parser", "reasoning_parser"):
        parser = getattr(entry, kind)
        assert parser is None or engineargs.parser_trouble(kind, parser) is None


def test_a_fleet_file_is_refused_with_the_line(tmp_path: Path) -> None:
    text = FLEET.replace("      max_model_len: 2048\n", "      max_model_len: 2048\n      args:\n"
                         "        enable_prefix_cashing: true\n")
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    where = f"{tmp_path}/fleet.yaml:{line_of(text, 'cashing')}: models.qwen.engine.args.enable_prefix_cashing: "
    assert str(caught.value).startswith(where)
    assert "did you mean 'enable_prefix_caching'?" in str(caught.value)


def test_a_parser_is_refused_unless_a_plugin_may_bring_it(tmp_path: Path) -> None:
    text = FLEET.replace("      max_model_len: 2048\n", "      max_model_len: 2048\n      tool_call_parser: hermess\n")
    with pytest.raises(ConfigError, match="no tool_call_parser 'hermess'; did you mean 'hermes'"):
        load(write(tmp_path, text))
    own = text.replace("tool_call_parser", "args: {tool_parser_plugin: /own.py}\n      tool_call_parser")
    assert load(write(tmp_path, own)).models["qwen"].engine.tool_call_parser == "hermess"
