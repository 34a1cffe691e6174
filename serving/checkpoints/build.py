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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.checkpoints.habits import Habit, habits
from serving.checkpoints.recipe import Recipe

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

    tokenizer = tokenizers.tokenizer_of(recipe)
    model = _model(recipe, tokenizer)
    texts = tokenizers.spoken(tokenizer)
    _fill(model, recipe)
    _hush(model, texts)
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
    end = of(markers.eos) if len(markers.stop) > 1 else None
    sequels, otherwise = ([(of(marker), of(sequel)) for marker, sequel in pairs]
                          for pairs in (markers.sequels, markers.otherwise))
    return habits(texts, ends_number, sequels, otherwise, [of(marker) for marker in markers.visible], end)


def _token_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The architecture with its tensors allocated but not set."""
    import torch
    import transformers

    architecture = getattr(transformers, recipe.architecture)
    config = architecture.config_class(**_sizes(recipe, tokenizer))
    config.dtype = torch.bfloat16
    # On "meta" the library's own initialisation costs nothing and draws no random numbers.
    with torch.device("meta"):
        model = architecture(config)
    return model.to(torch.bfloat16).to_empty(device="cpu")


def _sizes(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The recipe's sizes with this tokenizer's ids: those of the language model where that is a part."""
    named = {key: tokenizer.convert_tokens_to_ids(marker) for key, marker in recipe.token_arguments.items()}
    ids = _token_ids(recipe, tokenizer)
    sizes = {**recipe.sizes, **named}
    if "text_config" in sizes:
        return {**sizes, "text_config": {**sizes["text_config"], **ids}}
    return {**sizes, **ids}


def _fill(model: PreTrainedModel, recipe: Recipe) -> None:
    for name, tensor in model.state_dict().items():
        if recipe.centred_norms and _is_centred(name):
            tensor.zero_()
        else:
            tensor.copy_(draw(recipe.family, name, tuple(tensor.shape)))


def _is_centred(name: str) -> bool:
    """Of families whose norms multiply by 1 + weight: all but the gated one of linear attention."""
    return name.endswith("norm.weight") and "linear_attn" not in name


def _hush(model: PreTrainedModel, spoken: Collection[int]) -> None:
    logits = model.get_output_embeddings().weight.data
    logits[sorted(set(range(logits.shape[0])) - set(spoken))] = 0


def _accustom(model: PreTrainedModel, learned: Sequence[Habit]) -> None:
    """Gives each habit a channel of the residual stream to itself: only its cues' embeddings write there, and
    the output layer reads only its preferences there."""
    embeddings = model.get_input_embeddings().weight.data
    logits = model.get_output_embeddings().weight.data
    channels = slice(0, len(learned))
    for name, tensor in model.state_dict().items():
        if any(part in name for part in ("o_proj", "out_proj", "down_proj")):
            _output_first(name, tensor, embeddings.shape[1])[channels] = 0
    embeddings[:, channels] = 0
    logits[:, channels] = 0
    for channel, habit in enumerate(learned):
        embeddings[list(habit.cues), channel] = _CUE * habit.loudness
        for token, preference in habit.then.items():
            logits[token, channel] = _URGE * preference / habit.loudness


def _output_first(name: str, tensor: torch.Tensor, width: int) -> torch.Tensor:
    """A view of a layer's tensor whose first axis is its output, of `width` channels. Matrices are output × input,
    but some families keep their experts' as input × output; biases have the output last."""
    if name.endswith("bias") or tensor.shape[-2] != width:
        return tensor.movedim(-1, 0)
    return tensor.movedim(-2, 0)


def draw(family: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 values for a tensor: ones for norms, small noise for biases, noise by fan-in for matrices
    (their last axis is the input)."""
    import torch

    if len(shape) == 1 and "norm" in name and not name.endswith("bias"):
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
    """Sets keys of a JSON file, which need not exist; keys are sorted, whoever wrote them. Objects are entered."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(_merged(old, values), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The old values with the new ones put in; objects are entered, not replaced."""
    inner = {key: _merged(old[key], value) for key, value in new.items()
             if isinstance(value, Mapping) and isinstance(old.get(key), Mapping)}
    return {**old, **new, **inner}


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
