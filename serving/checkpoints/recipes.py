"""What is true of each family: architecture class, sizes, markers, stop tokens, chat template.

Data only, and light: nothing here imports torch or transformers, reads a clock or writes a file. Sizes are
about the smallest that vLLM's CPU kernels accept; what makes an architecture (grouped heads, expert groups,
latent attention) is kept. Everything a checkpoint is made from enters `Recipe.digest`, so that a changed
recipe gets a new folder instead of reusing an old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

# Raise it when the way of building changes (tokenizer training, how weights are drawn, files written).
RECIPE_VERSION = 1
VOCABULARY = 2048
CONTEXT = 4096

_HERE = Path(__file__).parent


class CheckpointError(ValueError):
    """A checkpoint cannot be made; the message says what is wrong and what to do."""


class UnknownCheckpoint(CheckpointError):
    """No recipe for a family. `family` is the name asked for, `nearest` the closest one there is, or None."""

    def __init__(self, family: str) -> None:
        from difflib import get_close_matches

        close = get_close_matches(str(family), RECIPES, n=1, cutoff=0.4)
        self.family = family
        self.nearest = close[0] if close else None
        hint = f" did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"no checkpoint family {family!r};{hint} there are: {', '.join(RECIPES)}")


@dataclass(frozen=True, slots=True)
class Markers:
    """The tokens that are not text. Control markers have the first ids, visible ones the last.

    control  never shown to a client: vLLM drops them from the text it returns
    visible  single tokens that stay in the text, because parsers look for them there (thoughts, tool calls)
    stop     tokens that end an answer; `eos` is one of them
    ends_number  the control marker that follows a call's number, where calls are numbered
    sequels  pairs of markers of which the second follows the first, so that calls end
    bos_before_text  whether `bos` is put before a bare prompt, as this family's own tokenizer does
    """

    control: tuple[str, ...]
    eos: str
    pad: str
    bos: str | None = None
    visible: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    ends_number: str | None = None
    sequels: tuple[tuple[str, str], ...] = ()
    bos_before_text: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """One family. `sizes` are arguments of the architecture's configuration class; `also` is written to
    config.json as it stands, for keys that vLLM reads and that class does not know or would not write;
    `files` are further JSON files, {path in the folder: value}; `token_arguments` are arguments that take a marker's
    id, {argument: marker}; `centred_norms`: norms multiply by one more than their weight; `vocabulary`: a published
    vocabulary instead of one trained here (`serving.checkpoints.vocabularies`); `needs`: for people, what has to be
    there to make or serve it. An architecture made of parts has its language model's sizes under `text_config`."""

    family: str
    architecture: str
    markers: Markers
    template: str
    sizes: Mapping[str, Any]
    also: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    token_arguments: Mapping[str, str] = field(default_factory=dict)
    centred_norms: bool = False
    vocabulary: str | None = None
    needs: str = ""

    def chat_template(self) -> str:
        """The Jinja source of the family's chat template."""
        return (_HERE / "templates" / f"{self.template}.jinja").read_text(encoding="utf-8")

    def digest(self) -> str:
        """12 hex digits that change whenever the checkpoint would."""
        later = ("files", "token_arguments", "centred_norms", "vocabulary")
        values = {name: value for name, value in asdict(self).items()
                  if name != "needs" and (name not in later or value)}
        parts = [RECIPE_VERSION, VOCABULARY, CONTEXT, corpus(), self.chat_template(), values]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@cache
def corpus() -> str:
    """The text that tokenizers are trained on: English prose, dialogue, code and JSON, written for this."""
    return (_HERE / "corpus.txt").read_text(encoding="utf-8")


def families() -> tuple[str, ...]:
    """Names that `make` knows."""
    return tuple(RECIPES)


def recipe_for(family: str) -> Recipe:
    """The family's recipe. Raises UnknownCheckpoint."""
    try:
        return RECIPES[family]
    except (KeyError, TypeError):
        raise UnknownCheckpoint(family) from None


def family_of(name: str) -> str:
    """The family of a name: a family's own, or an architecture class (its first family). Raises UnknownCheckpoint."""
    if name in RECIPES:
        return name
    return next((recipe.family for recipe in RECIPES.values() if recipe.architecture == name), None) or recipe_for(
        name
    ).family


_SMALL = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": False,
}
_GROUPED_HEADS = {"num_key_value_heads": 1, "head_dim": 32}

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
        "word_embedding_dimension": _SMALL["hidden_size"],
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    },
}

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

# The bars are full-width and the gaps are U+2581, as DeepSeek writes them.
_DEEPSEEK = Markers(
    control=(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
    ),
    visible=("<think>", "</think>"),
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

# gpt-oss, whose vocabulary has its own numbers for these. Sequels lead through harmony's channels: to a thought or to
# the answer, and from a thought that ends to the next message. The channel of calls is comment + ary in this
# vocabulary, and "Ġto" is " to" as byte-level tokenizers write it.
_HARMONY = Markers(
    control=(
        "<|startoftext|>",
        "<|endoftext|>",
        "<|return|>",
        "<|constrain|>",
        "<|channel|>",
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|call|>",
    ),
    bos="<|startoftext|>",
    eos="<|return|>",
    pad="<|endoftext|>",
    stop=("<|return|>", "<|endoftext|>", "<|call|>"),
    sequels=(
        ("assistant", "<|channel|>"),
        ("<|channel|>", "final"),
        ("<|channel|>", "analysis"),
        ("final", "<|message|>"),
        ("analysis", "<|message|>"),
        ("ary", "Ġto"),
        ("<|end|>", "<|start|>"),
        ("<|start|>", "assistant"),
    ),
)

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

# vLLM computes latent attention on a CPU only for a latent of 512 + 64; other sizes die at the first request.
_LATENT = {
    **_SMALL,
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
_ROUTER = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 0}

_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
_HALF = [0.5, 0.5, 0.5]
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}


def _qwen_pictures(kind: str, processor: str, edge: int) -> dict[str, Any]:
    """How pictures become patches of 16 × 16, four of them a token; a picture has at most `edge`² pixels."""
    patches = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 32 * 32, "longest_edge": edge * edge}
    return {kind: processor, "processor_class": "Qwen3VLProcessor", **patches, "size": size, "image_mean": _HALF,
            "image_std": _HALF}


RECIPES: Mapping[str, Recipe] = {
    recipe.family: recipe
    for recipe in (
        Recipe(
            family="qwen3",
            architecture="Qwen3ForCausalLM",
            markers=_CHATML,
            template="chatml",
            sizes={**_SMALL, **_GROUPED_HEADS},
        ),
        Recipe(
            family="qwen3-moe",
            architecture="Qwen3MoeForCausalLM",
            markers=_CHATML,
            template="chatml",
            sizes={
                **_SMALL,
                **_GROUPED_HEADS,
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
            sizes={**_SMALL, **_GROUPED_HEADS},
            files=_LAST_TOKEN,
        ),
        Recipe(
            family="qwen3-reranker",
            architecture="Qwen3ForCausalLM",
            markers=_YES_NO,
            template="chatml",
            sizes={**_SMALL, **_GROUPED_HEADS},
        ),
        Recipe(
            family="deepseek-r1",
            architecture="DeepseekV3ForCausalLM",
            markers=_DEEPSEEK,
            template="deepseek",
            sizes=_LATENT,
            also=_ROUTER,
        ),
        Recipe(
            family="llama",
            architecture="LlamaForCausalLM",
            markers=_LLAMA3,
            template="llama3",
            sizes={
                **_SMALL,
                **_GROUPED_HEADS,
                "rms_norm_eps": 1e-5,
                "rope_parameters": _LLAMA3_ROPE,
            },
        ),
        Recipe(
            family="seed-oss",
            architecture="SeedOssForCausalLM",
            markers=_SEED,
            template="seed",
            sizes={
                **_SMALL,
                **_GROUPED_HEADS,
                "attention_bias": True,
                "attention_out_bias": False,
                "mlp_bias": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0},
            },
        ),
        Recipe(
            family="kimi-k2",
            architecture="DeepseekV3ForCausalLM",
            markers=_KIMI,
            template="kimi",
            sizes={**_LATENT, "n_group": 1, "routed_scaling_factor": 2.827},
            also={**_ROUTER, "model_type": "kimi_k2"},
        ),
        # Three layers of four keep a state instead of a cache, as in the published ones.
        Recipe(
            family="qwen3-next",
            architecture="Qwen3NextForCausalLM",
            markers=_CHATML,
            template="chatml",
            centred_norms=True,
            sizes={
                **_SMALL,
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
                    **_SMALL,
                    **_GROUPED_HEADS,
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
                    **_SMALL,
                    **_GROUPED_HEADS,
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
                    "image_mean": _HALF,
                    "image_std": _HALF,
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
        # Unquantised: MXFP4 needs AMX on a CPU. Its vocabulary cannot be smaller: vLLM renders chats by the harmony
        # library, in that vocabulary's numbers.
        Recipe(
            family="gpt-oss",
            architecture="GptOssForCausalLM",
            markers=_HARMONY,
            template="harmony",
            vocabulary="o200k_harmony",
            needs="o200k_base.tiktoken in the folder that TIKTOKEN_ENCODINGS_BASE names",
            sizes={
                **_SMALL,
                **_GROUPED_HEADS,
                "vocab_size": 201088,
                "intermediate_size": 96,
                "num_local_experts": 4,
                "num_experts_per_tok": 2,
                "sliding_window": 128,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 150000.0,
                    "factor": 32.0,
                    "beta_fast": 32.0,
                    "beta_slow": 1.0,
                    "truncate": False,
                    "original_max_position_embeddings": 128,
                },
            },
        ),
    )
}
