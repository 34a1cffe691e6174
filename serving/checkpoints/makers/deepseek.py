"""DeepSeek: R1 and V3, with latent attention and experts in groups."""

from __future__ import annotations

from serving.checkpoints.makers.sizes import SMALL
from serving.checkpoints.recipe import Markers, Recipe

# The bars are full-width and the gaps are U+2581, as DeepSeek writes them.
_DEEPSEEK = Markers(
    control=(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
    ),
    # vLLM's parser of its calls leaves special tokens out of the text, so those of calls must not be special
    visible=(
        "<think>",
        "</think>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
    ),
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
    pad="<｜▁pad▁｜>",
    stop=("<｜end▁of▁sentence｜>",),
    sequels=(
        ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
        ("<｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>"),
    ),
    bos_before_text=True,
)

# vLLM computes latent attention on a CPU only for a latent of 512 + 64; other sizes die at the first request.
LATENT = {
    **SMALL,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 64,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "kv_lora_rank": 512,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
}
ROUTER = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 0}

RECIPES = (
    Recipe(
        family="deepseek-r1",
        architecture="DeepseekV3ForCausalLM",
        markers=_DEEPSEEK,
        template="deepseek",
        sizes=LATENT,
        also=ROUTER,
    ),
)
