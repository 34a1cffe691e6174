"""Meta's Llama 3, and Llama 4 with pictures."""

from __future__ import annotations

from serving.checkpoints.makers.sizes import GROUPED_HEADS, HALF, SMALL
from serving.checkpoints.recipe import Markers, Recipe

_LLAMA3 = Markers(
    control=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|finetune_right_pad_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ),
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    pad="<|finetune_right_pad_id|>",
    stop=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    bos_before_text=True,
)

_LLAMA4 = Markers(
    control=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|finetune_right_pad|>",
        "<|header_start|>",
        "<|header_end|>",
        "<|eom|>",
        "<|eot|>",
        "<|python_start|>",
        "<|python_end|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|image|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    ),
    bos="<|begin_of_text|>",
    eos="<|eot|>",
    pad="<|finetune_right_pad|>",
    stop=("<|end_of_text|>", "<|eom|>", "<|eot|>"),
    bos_before_text=True,
)

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}

RECIPES = (
    Recipe(
        family="llama",
        architecture="LlamaForCausalLM",
        markers=_LLAMA3,
        template="llama3",
        sizes={
            **SMALL,
            **GROUPED_HEADS,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _LLAMA3_ROPE,
        },
    ),
    # Layer 4 attends to everything and has no positions; the others attend within chunks. Every second layer has
    # experts, whose matrices are input × output.
    Recipe(
        family="llama4",
        architecture="Llama4ForConditionalGeneration",
        markers=_LLAMA4,
        template="llama4",
        needs="torchvision",
        sizes={
            "text_config": {
                **SMALL,
                **GROUPED_HEADS,
                "num_hidden_layers": 4,
                "intermediate_size": 96,
                "intermediate_size_mlp": 128,
                "num_experts_per_tok": 1,
                "num_local_experts": 4,
                "interleave_moe_layer_step": 2,
                "use_qk_norm": True,
                "no_rope_layer_interval": 4,
                "attention_chunk_size": 512,
                "attn_temperature_tuning": True,
                "floor_scale": 8192,
                "attn_scale": 0.1,
                "rope_parameters": _LLAMA3_ROPE,
            },
            "vision_config": {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 256,
                "vision_output_dim": 64,
                "image_size": 56,
                "patch_size": 14,
                "pixel_shuffle_ratio": 0.5,
                "projector_input_dim": 64,
                "projector_output_dim": 64,
            },
            "tie_word_embeddings": False,
        },
        token_arguments={
            "boi_token_index": "<|image_start|>",
            "eoi_token_index": "<|image_end|>",
            "image_token_index": "<|patch|>",
        },
        files={
            "preprocessor_config.json": {
                "image_processor_type": "Llama4ImageProcessorFast",
                "processor_class": "Llama4Processor",
                "size": {"height": 56, "width": 56},
                "max_patches": 4,
                "resize_to_max_canvas": False,
                "do_resize": True,
                "do_rescale": True,
                "do_normalize": True,
                "rescale_factor": 1 / 255,
                "image_mean": HALF,
                "image_std": HALF,
            },
            "processor_config.json": {
                "processor_class": "Llama4Processor",
                "patch_size": 14,
                "pixel_shuffle_ratio": 0.5,
                "fake_image_token": "<|image|>",
                "image_token": "<|image|>",
                "start_of_image_token": "<|image_start|>",
                "end_of_image_token": "<|image_end|>",
                "patch_token": "<|patch|>",
                "tile_x_separator_token": "<|tile_x_separator|>",
                "tile_y_separator_token": "<|tile_y_separator|>",
            },
        },
    ),
)
