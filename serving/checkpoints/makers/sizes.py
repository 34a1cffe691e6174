"""Sizes that families share: about the smallest that vLLM's CPU kernels accept, with what makes an architecture kept.
"""

from __future__ import annotations

from serving.checkpoints.recipe import CONTEXT, VOCABULARY

SMALL = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": False,
}
GROUPED_HEADS = {"num_key_value_heads": 1, "head_dim": 32}
HALF = [0.5, 0.5, 0.5]  # mean and deviation of pictures
