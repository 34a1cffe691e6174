"""ByteDance's Seed-OSS."""

from __future__ import annotations

from serving.checkpoints.makers.sizes import GROUPED_HEADS, SMALL
from serving.checkpoints.recipe import Markers, Recipe

_SEED = Markers(
    control=("<seed:bos>", "<seed:pad>", "<seed:eos>"),
    visible=(
        "<seed:think>",
        "</seed:think>",
        "<seed:cot_budget_reflect>",
        "</seed:cot_budget_reflect>",
        "<seed:tool_call>",
        "</seed:tool_call>",
    ),
    bos="<seed:bos>",
    eos="<seed:eos>",
    pad="<seed:pad>",
    stop=("<seed:eos>",),
    sequels=(("</seed:tool_call>", "<seed:eos>"),),
)

RECIPES = (
    Recipe(
        family="seed-oss",
        architecture="SeedOssForCausalLM",
        markers=_SEED,
        template="seed",
        sizes={
            **SMALL,
            **GROUPED_HEADS,
            "attention_bias": True,
            "attention_out_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0},
        },
    ),
)
