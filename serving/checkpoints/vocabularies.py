"""Published vocabularies that a checkpoint cannot do without, read from a file that its user has fetched.

gpt-oss is the one: vLLM renders its chats by OpenAI's harmony library, in the numbers of o200k. That library looks for
the same file in the same place (TIKTOKEN_ENCODINGS_BASE) and otherwise downloads it. Must not fetch anything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serving.checkpoints.recipe import CONTEXT, CheckpointError, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VARIABLE = "TIKTOKEN_ENCODINGS_BASE"
FILE = "o200k_base.tiktoken"
# tiktoken's own check of its download (tiktoken_ext.openai_public)
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
_FIRST, _SIZE = 199_998, 201_088  # of the special tokens that harmony adds, and of all
_SPECIAL = {
    199_998: "<|startoftext|>", 199_999: "<|endoftext|>", 200_002: "<|return|>", 200_003: "<|constrain|>",
    200_005: "<|channel|>", 200_006: "<|start|>", 200_007: "<|end|>", 200_008: "<|message|>", 200_012: "<|call|>",
    200_018: "<|endofprompt|>",
}
_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class MissingVocabulary(CheckpointError):
    """The vocabulary's file is not where the environment says, or is another file."""


def found(environ: Mapping[str, str] = os.environ) -> Path:
    """The vocabulary's file, checked. Raises: MissingVocabulary, which says how to get it."""
    folder = environ.get(VARIABLE)
    how = f"fetch {_URL} into a folder and let {VARIABLE} name that folder"
    if not folder:
        raise MissingVocabulary(f"gpt-oss speaks in the vocabulary o200k, and {VARIABLE} is not set: {how}")
    file = Path(folder) / FILE
    if not file.is_file():
        raise MissingVocabulary(f"gpt-oss speaks in the vocabulary o200k, and there is no {file}: {how}")
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != _SHA256:
            raise MissingVocabulary(f"{file} is not the published vocabulary (its SHA-256 differs): {how}")
    return file


def harmony(recipe: Recipe, file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of gpt-oss: o200k and harmony's special tokens at their published numbers."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    special = [_SPECIAL.get(number, f"<|reserved_{number}|>") for number in range(_FIRST, _SIZE)]
    core = TikTokenConverter(vocab_file=str(file), pattern=_WORDS, extra_special_tokens=special).converted()
    markers = recipe.markers
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=markers.bos, eos_token=markers.eos, pad_token=markers.pad,
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False, chat_template=recipe.chat_template(),
    )
