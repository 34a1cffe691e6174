"""Alibaba's Qwen: Qwen3 dense and with experts, embedding and reranker, Qwen3-Next, Qwen3-VL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serving.checkpoints.makers.sizes import GROUPED_HEADS, HALF, SMALL
from serving.checkpoints.recipe import Markers, Recipe

_CHATML = Markers(
    control=(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
    visible=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    eos="<|im_end|>",
    pad="<|endoftext|>",
    stop=("<|im_end|>", "<|endoftext|>"),
    sequels=(("</tool_call>", "<|im_end|>"),),
)

# A reranker's score is what its model gives "yes" against "no", so each must be one token.
_YES_NO = replace(_CHATML, visible=(*_CHATML.visible, "yes", "no"))

# As sentence-transformers writes it: the last token's state, normalised.
_LAST_TOKEN = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": SMALL["hidden_size"],
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    },
}

_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}


def _qwen_pictures(kind: str, processor: str, edge: int) -> dict[str, Any]:
    """How pictures become patches of 16 × 16, four of them a token; a picture has at most `edge`² pixels."""
    patches = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 32 * 32, "longest_edge": edge * edge}
    return {kind: processor, "processor_class": "Qwen3VLProcessor", **patches, "size": size, "image_mean": HALF,
            "image_std": HALF}


RECIPES = (
    Recipe(
        family="qwen3",
        architecture="Qwen3ForCausalLM",
        markers=_CHATML,
        template="chatml",
        sizes={**SMALL, **GROUPED_HEADS},
    ),
    Recipe(
        family="qwen3-moe",
        architecture="Qwen3MoeForCausalLM",
        markers=_CHATML,
        template="chatml",
        sizes={
            **SMALL,
            **GROUPED_HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
        },
    ),
    # Served with vLLM's `runner: pooling`; the reranker also with the `hf_overrides` that its model card names.
    Recipe(
        family="qwen3-embedding",
        architecture="Qwen3ForCausalLM",
        markers=_CHATML,
        template="chatml",
        sizes={**SMALL, **GROUPED_HEADS},
        files=_LAST_TOKEN,
    ),
    Recipe(
        family="qwen3-reranker",
        architecture="Qwen3ForCausalLM",
        markers=_YES_NO,
        template="chatml",
        sizes={**SMALL, **GROUPED_HEADS},
    ),
    # Three layers of four keep a state instead of a cache, as in the published ones.
    Recipe(
        family="qwen3-next",
        architecture="Qwen3NextForCausalLM",
        markers=_CHATML,
        template="chatml",
        centred_norms=True,
        sizes={
            **SMALL,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000000.0,
                "partial_rotary_factor": 0.25,
            },
        },
    ),
    Recipe(
        family="qwen3-vl",
        architecture="Qwen3VLForConditionalGeneration",
        markers=_CHATML,
        template="qwen3vl",
        needs="torchvision",
        sizes={
            "text_config": {
                **SMALL,
                **GROUPED_HEADS,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 5000000.0,
                    "mrope_section": [6, 5, 5],
                    "mrope_interleaved": True,
                },
            },
            "vision_config": {
                **_VISION,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            "tie_word_embeddings": False,
        },
        token_arguments={
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        },
        # vLLM's CPU platform asks the language model's part for its architecture
        also={"text_config": {"architectures": ["Qwen3ForCausalLM"]}},
        files={
            "preprocessor_config.json": _qwen_pictures("image_processor_type", "Qwen2VLImageProcessorFast", 128),
            "video_preprocessor_config.json": _qwen_pictures("video_processor_type", "Qwen3VLVideoProcessor", 128),
        },
    ),
)
