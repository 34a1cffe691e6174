"""OpenAI's gpt-oss, which speaks harmony: messages in channels."""

from __future__ import annotations

from serving.checkpoints.makers.sizes import GROUPED_HEADS, SMALL
from serving.checkpoints.recipe import Markers, Recipe

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
    # An answer in JSON has its form in the header, and vLLM loses one whose header says it without the marker.
    otherwise=(("final", "Ġ"), ("Ġ", "<|constrain|>")),
)

RECIPES = (
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
            **SMALL,
            **GROUPED_HEADS,
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
