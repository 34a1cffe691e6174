"""`flotilla bench kv`: the cache's formulas held against what vLLM itself says of its cache.

Per KV layout one small engine is started whose attention is a published model's (layers, heads, widths, windows, states
by its catalogue entry) and whose other sizes are a small checkpoint's, with random weights; its blocks, and how many
requests of the full length it reports to hold, are compared with `fleet.models.cache`, to which only config.json and
the engine's arguments are told. May not happen in here: importing vLLM, which is for `kv_engine`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving import checkpoints
from serving.bench.arms import ENGINE_ENV
from serving.bench.children import clean_environment
from serving.bench.gateway import Say, machine
from serving.errors import ConfigError, did_you_mean
from serving.fleet.models import entries, hubconfig
from serving.fleet.models.cache import blocks
from serving.fleet.models.entries import Entry
from serving.fleet.models.layers import layout

LIMIT = 0.02  # how far the formula may be off
_BATCHED, _BLOCK, _MEMORY = 2048, 32, 2**30
_START_S = 240.0
# what decides the cache, and what must be there to fit to it
_ATTENTION = (
    "num_hidden_layers", "num_key_value_heads", "num_attention_heads", "head_dim", "layer_types", "sliding_window",
    "attention_chunk_size", "no_rope_layer_interval", "full_attention_interval", "kv_lora_rank", "qk_rope_head_dim",
    "linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_num_key_heads",
    "linear_num_value_heads", "max_position_embeddings",
)


@dataclass(frozen=True)
class Case:
    """One published model's layout. `small`: family whose other sizes it borrows; `model_type`: as transformers names
    it; `context`: tokens of the longest request; `more`: further keys of config.json."""

    entry: str
    small: str
    model_type: str
    context: int = 2048
    more: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("llama/llama-3.1-8b", "llama", "llama"),
    Case("qwen/qwen3-8b", "qwen3", "qwen3"),
    Case("qwen/qwen3-30b-a3b", "qwen3-moe", "qwen3_moe"),
    Case("seed/seed-oss-36b", "seed-oss", "seed_oss"),
    # queries do not enter the cache, and 128 heads of them would be gigabytes of weights
    Case("deepseek/deepseek-r1-0528", "deepseek-r1", "deepseek_v3", more={
        "num_attention_heads": 2, "num_key_value_heads": 2}),
    Case("kimi/kimi-k2-instruct-0905", "kimi-k2", "kimi_k2", more={
        "num_attention_heads": 2, "num_key_value_heads": 2}),
    Case("gpt-oss/gpt-oss-20b", "gpt-oss", "gpt_oss", more={"vocab_size": 2048}),
    # vLLM keeps its states in 32 bits on a CPU, whatever the model says
    Case("qwen/qwen3-next-80b-a3b", "qwen3-next", "qwen3_next", more={"mamba_ssm_dtype": "float32"}),
    # longer than its chunk of 8,192 tokens; the language model alone
    Case("llama/llama-4-scout", "llama4", "llama4_text", 16384, {
        "architectures": ["Llama4ForCausalLM"], "num_hidden_layers": 8}),
)


@dataclass(frozen=True)
class KvPlan:
    """What to measure."""

    cases: tuple[Case, ...]
    catalogue: Path


def chosen(names: Sequence[str]) -> tuple[Case, ...]:
    """The cases of these models, or all. Raises: ConfigError."""
    known = [case.entry for case in CASES]
    for name in names:
        if name not in known:
            raise ConfigError(f"no layout of {name!r} is measured; {did_you_mean(name, known, 'there are')}")
    return tuple(case for case in CASES if not names or case.entry in names)


def measure(plan: KvPlan, say: Say) -> dict[str, Any]:
    """Run the benchmark. Returns the report; a case whose engine does not start is in it with the reason."""
    catalogue, rows, failed = entries.load(plan.catalogue), [], []
    for case in plan.cases:
        say(f"an engine with the attention of {case.entry}")
        entry = catalogue.named(case.entry)
        with tempfile.TemporaryDirectory(prefix="flo-") as folder:
            config = config_of(case, entry)
            (Path(folder) / "config.json").write_text(json.dumps(config))
            said = _engine(Path(folder), case)
        if isinstance(said, str):
            failed.append({"name": case.entry, "reason": said})
        else:
            rows.append(compare(case, config, said))
    return {"machine": machine(), "limit": LIMIT, "load": {
        "memory_bytes": _MEMORY, "block_size": _BLOCK, "batched_tokens": _BATCHED}, "models": rows, "failed": failed}


def config_of(case: Case, entry: Entry) -> dict[str, Any]:
    """A config.json with the entry's attention and the small checkpoint's other sizes."""
    recipe = checkpoints.recipe_for(case.small)
    sizes = {**recipe.sizes, **recipe.also}
    small = {**sizes, **sizes["text_config"]} if "text_config" in sizes else sizes
    inner = entry.config.get("text_config", entry.config)
    own = {key: inner[key] for key in _ATTENTION if key in inner}
    if "head_dim" not in own and "kv_lora_rank" not in own:
        own["head_dim"] = inner["hidden_size"] // inner["num_attention_heads"]
    parts = {"text_config", "vision_config"}
    return {"architectures": [entry.architecture], "model_type": case.model_type, "dtype": "bfloat16",
            **{k: v for k, v in small.items() if k not in parts}, **own, **case.more}


def compare(case: Case, config: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the formula gives beside what the engine said (`kv_engine.look`). `off`: relative, of the requests at once.
    """
    size = hubconfig.describe(config)
    plan = blocks(size.cache, 2, 1, _BLOCK, said["in_flight"], said["prefix_caching"])
    computed, reported = plan.concurrency(_MEMORY, case.context), said["concurrency"]
    return {"name": case.entry, "layout": layout(size.cache), "layers": size.layers, "context": case.context,
            "block_size": {"computed": plan.block_size, "reported": said["block_size"]},
            "blocks": {"computed": plan.number(_MEMORY), "reported": said["blocks"]},
            "requests": {"computed": computed, "reported": reported},
            "tokens": {"computed": int(computed * case.context), "reported": said["tokens"]},
            "off": computed / reported - 1}


def _engine(folder: Path, case: Case) -> dict[str, Any] | str:
    """What an engine says of its cache; a text: why there is none."""
    arguments = {"max_model_len": case.context, "max_num_batched_tokens": _BATCHED, "block_size": _BLOCK,
                 "kv_cache_memory_bytes": _MEMORY, "max_num_seqs": 16}
    command = [sys.executable, "-m", "serving.bench.kv_engine", str(folder), json.dumps(arguments)]
    try:
        done = subprocess.run(command, env=clean_environment() | ENGINE_ENV, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=_START_S)
    except subprocess.TimeoutExpired:
        return f"it did not start within {_START_S:g} s"
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return lines[-1][:400] if lines else f"it ended with code {done.returncode}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
