"""A small fleet file that is right, and ways to make it wrong."""

from __future__ import annotations

import json
from pathlib import Path

FLEET = """\
name: sample
prices: prices.json
accelerators:
  core:
    kind: cpu
    memory_gib: 2
    price_usd_per_hour: 0.0416
models:
  qwen:
    source: small:qwen3
    architecture: Qwen3ForCausalLM
    accelerator: core
    aliases: [qwen3, small]
    slo: {ttft_ms: 1500, tpot_ms: 80}
    engine:
      max_model_len: 2048
      tensor_parallel_size: 2
    comparators:
      - {price: api-one, role: frontier}
  llama:
    source: org/llama
    architecture: LlamaForCausalLM
    accelerator: core
    slo: {ttft_ms: 1500, tpot_ms: 80}
tenants:
  demo: {}
"""
PRICES = {
    "origin": "made up",
    "models": {
        "api-one": {
            "input_cost_per_token": 1e-6,
            "output_cost_per_token": 4e-6,
            "cache_read_input_token_cost": 1e-7,
            "input_cost_per_token_batches": 5e-7,
            "output_cost_per_token_batches": 2e-6,
        },
        "api-two": {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6},
        "images": {"output_cost_per_image": 0.04},
    },
}


def write(folder: Path, text: str = FLEET) -> Path:
    """The fleet file, with its price book beside it."""
    (folder / "prices.json").write_text(json.dumps(PRICES))
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


def line_of(text: str, part: str) -> int:
    """The number of the first line that has this part."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)
