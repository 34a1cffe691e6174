"""Moonshot's Kimi K2: DeepSeek's architecture with one group of experts, and markers of its own."""

from __future__ import annotations

from serving.checkpoints.makers.deepseek import LATENT, ROUTER
from serving.checkpoints.recipe import Markers, Recipe

_KIMI = Markers(
    control=(
        "[BOS]",
        "[EOS]",
        "[PAD]",
        "<|im_end|>",
        "<|im_user|>",
        "<|im_assistant|>",
        "<|im_system|>",
        "<|im_middle|>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    visible=("<think>", "</think>"),
    bos="[BOS]",
    eos="<|im_end|>",
    pad="[PAD]",
    stop=("<|im_end|>", "[EOS]"),
    ends_number="<|tool_call_argument_begin|>",
    sequels=(
        ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
        ("<|tool_calls_section_end|>", "<|im_end|>"),
    ),
)

RECIPES = (
    Recipe(
        family="kimi-k2",
        architecture="DeepseekV3ForCausalLM",
        markers=_KIMI,
        template="kimi",
        sizes={**LATENT, "n_group": 1, "routed_scaling_factor": 2.827},
        also={**ROUTER, "model_type": "kimi_k2"},
    ),
)
