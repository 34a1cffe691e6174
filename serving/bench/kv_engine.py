"""The process that `flotilla bench kv` measures: one small vLLM engine with random weights, and what it says of its
cache.

Run as `python -m serving.bench.kv_engine FOLDER ARGUMENTS`; FOLDER has a config.json, ARGUMENTS are engine arguments as
JSON. The last line of stdout is JSON. May not happen in here: the formula that is checked.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def look(folder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Start the engine and read how its cache is laid out, and how large the tensors are that hold it."""
    from vllm import LLM

    llm = LLM(model=folder, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, **arguments)
    core = llm.llm_engine.engine_core.engine_core
    own, config = core.vllm_config.cache_config, core.scheduler.kv_cache_config
    runner = core.model_executor.driver_worker.worker.model_runner
    layers = [name for group in config.kv_cache_groups for name in group.layer_names]
    return {
        "blocks": config.num_blocks, "block_size": own.block_size,
        "groups": [{"layers": len(g.layer_names), "kind": type(g.kv_cache_spec).__name__,
                    "page_bytes": g.kv_cache_spec.page_size_bytes} for g in config.kv_cache_groups],
        "tensor_bytes": max(tensor.size for tensor in config.kv_cache_tensors), "layers": len(layers),
        "concurrency": own.kv_cache_max_concurrency, "tokens": own.kv_cache_size_tokens,
        "prefix_caching": own.enable_prefix_caching, "in_flight": core.vllm_config.max_in_flight_tokens,
        "weights_bytes": sum(p.numel() * p.element_size() for p in runner.model.parameters()),
    }


if __name__ == "__main__":
    print("\n" + json.dumps(look(sys.argv[1], json.loads(sys.argv[2]))), flush=True)
