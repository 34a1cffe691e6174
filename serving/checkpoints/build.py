"""Writes one checkpoint: tokenizer, configuration, weights.

The weights are noise with a purpose. Each tensor is drawn from a seed derived from its name, uniformly
(normal draws go through logarithms that differ between processors), and scaled by fan-in so that attention
matters: what the model says depends on the whole context, and a wrong cache shows in the text. Rows of the
output layer are zero for tokens that are no text of their own, so that a greedy answer is not cut short or
silent: its length is `max_tokens` and every token streams as text. Habits lie over the noise. Must not touch
global random state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.checkpoints.habits import Habit, habits
from serving.checkpoints.recipes import VOCABULARY, Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Standard deviation of the logits: 2 makes the likeliest token clear in bfloat16 and leaves sampling varied.
_LOGIT_SPREAD = 2.0
_BIAS_SPREAD = 0.1
# A cue is this loud against noise of about 1 in the other channels, and adds up to 18 to a logit.
_CUE = 16.0
_URGE = 3.0


def write(recipe: Recipe, folder: Path) -> None:
    """Fills the empty folder with everything vLLM reads: config.json, generation_config.json,
    model.safetensors, the tokenizer's files and chat_template.jinja."""
    from serving.checkpoints import tokenizer as tokenizers

    tokenizer = tokenizers.train(recipe)
    model = _model(recipe, _token_ids(recipe, tokenizer))
    texts = tokenizers.spoken(tokenizer)
    _fill(model, recipe.family)
    _hush(model, set(range(VOCABULARY)) - set(texts))
    _accustom(model, _habits(recipe, tokenizer, texts))
    with _quiet():
        model.save_pretrained(folder)
    # Weights are written readable by their owner alone; an engine of another user must be able to load them.
    (folder / "model.safetensors").chmod(0o644)
    tokenizers.save(tokenizer, folder)
    _amend(folder / "config.json", {"architectures": [recipe.architecture], **recipe.also})
    stop = [tokenizer.convert_tokens_to_ids(token) for token in recipe.markers.stop]
    _amend(folder / "generation_config.json", {**_token_ids(recipe, tokenizer), "eos_token_id": stop})
    for name, value in recipe.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _habits(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, texts: dict[int, str]) -> tuple[Habit, ...]:
    of, markers = tokenizer.convert_tokens_to_ids, recipe.markers
    ends_number = None if markers.ends_number is None else of(markers.ends_number)
    return habits(texts, ends_number, [(of(marker), of(sequel)) for marker, sequel in markers.sequels])


def _token_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _model(recipe: Recipe, token_ids: dict[str, int | None]) -> PreTrainedModel:
    """The architecture with its tensors allocated but not set."""
    import torch
    import transformers

    architecture = getattr(transformers, recipe.architecture)
    config = architecture.config_class(**recipe.sizes, **token_ids)
    config.dtype = torch.bfloat16
    # On "meta" the library's own initialisation costs nothing and draws no random numbers.
    with torch.device("meta"):
        model = architecture(config)
    return model.to(torch.bfloat16).to_empty(device="cpu")


def _fill(model: PreTrainedModel, family: str) -> None:
    for name, tensor in model.state_dict().items():
        tensor.copy_(draw(family, name, tuple(tensor.shape)))


def _hush(model: PreTrainedModel, silent: Collection[int]) -> None:
    model.get_output_embeddings().weight.data[sorted(silent)] = 0


def _accustom(model: PreTrainedModel, learned: Sequence[Habit]) -> None:
    """Gives each habit a channel of the residual stream to itself: only its cues' embeddings write there, and
    the output layer reads only its preferences there."""
    embeddings = model.get_input_embeddings().weight.data
    logits = model.get_output_embeddings().weight.data
    channels = slice(0, len(learned))
    for name, tensor in model.state_dict().items():
        if "o_proj.weight" in name or "down_proj" in name:
            tensor[..., channels, :] = 0
    embeddings[:, channels] = 0
    logits[:, channels] = 0
    for channel, habit in enumerate(learned):
        embeddings[list(habit.cues), channel] = _CUE * habit.loudness
        for token, preference in habit.then.items():
            logits[token, channel] = _URGE * preference / habit.loudness


def draw(family: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 values for a tensor: ones for norms, small noise for biases, noise by fan-in for matrices
    (their last axis is the input)."""
    import torch

    if len(shape) == 1 and "norm" in name:
        return torch.ones(shape)
    if len(shape) == 1:
        spread = _BIAS_SPREAD
    elif "embed_tokens" in name:
        spread = 1.0
    elif "lm_head" in name:
        spread = _LOGIT_SPREAD / shape[-1] ** 0.5
    else:
        spread = 1.0 / shape[-1] ** 0.5
    seed = int.from_bytes(hashlib.sha256(f"{family}/{name}".encode()).digest()[:8], "big") >> 1
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (uniform * 2 - 1) * (spread * 3**0.5)


def _amend(path: Path, values: dict[str, Any]) -> None:
    """Sets keys of a JSON file, which need not exist; keys are sorted, whoever wrote them."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars while a few hundred kilobytes are written; the caller's choice is put back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
