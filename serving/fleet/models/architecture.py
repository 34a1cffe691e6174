"""What a model's config.json says about its size: parameters by what they are for, cache by kind of layer.

Written from the architectures' public definitions, checked against published parameter counts and against engines
(deployments/docs/models.md). An architecture that is not known here is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import ConfigError, nearest
from serving.fleet.models.layers import CacheLayers
from serving.fleet.models.parts import attention, linear, mlps, vision

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A model's size. Parameters are counts over the whole model.

    embedding: input table. head: output matrix, 0 where it is the input table. attention: with norms. dense: dense
    layers, shared experts, routers. experts: all routed ones. vision: image encoder. mlp_width, expert_width: widest
    inner sizes, for activations. pair_flops, window_flops: attention per (token, earlier token), see `ModelShape`.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    context: int
    embedding: int
    head: int
    attention: int
    dense: int
    experts: int
    vision: int
    n_experts: int
    experts_per_token: int
    mlp_width: int
    expert_width: int
    cache: tuple[CacheLayers, ...]
    pair_flops: float
    window_flops: float

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.attention + self.dense + self.experts + self.vision

    @property
    def active_parameters(self) -> int:
        """Those that one text token passes, the output matrix among them, the input table not."""
        routed = self.experts * self.experts_per_token // self.n_experts if self.n_experts else 0
        return (self.head or self.embedding) + self.attention + self.dense + routed


def describe(config: Config, where: str = "config.json") -> Architecture:
    """The size of the model that a config.json (or the part of it that the catalogue keeps) describes.

    `where` stands for the file in messages. Raises: ConfigError for an architecture that is not known here, or a key
    that is missing or no number.
    """
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list | tuple) and names else ""
    if name not in _KNOWN:
        near = nearest(name, _KNOWN)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(_KNOWN))}"
        raise ConfigError(f"{where}: the size of the architecture {name!r} cannot be computed here; {hint}")
    try:
        return _KNOWN[name](name, _text(config), config)
    except KeyError as error:
        raise ConfigError(f"{where}: {error.args[0]} is missing; {name} needs it") from None
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ConfigError(f"{where}: not the configuration of {name}: {error}") from None


def known() -> tuple[str, ...]:
    """Architectures whose size can be computed."""
    return tuple(sorted(_KNOWN))


def _text(config: Config) -> Config:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _build(name: str, text: Config, whole: Config, kinds: tuple[CacheLayers, ...], attention_parameters: int,
           linear_parameters: int, pair_flops: float, window_flops: float) -> Architecture:
    layers, hidden, vocabulary = text["num_hidden_layers"], text["hidden_size"], text["vocab_size"]
    inner = mlps.of(name, text)
    tied = bool(whole.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    table = vocabulary * hidden
    return Architecture(
        name, hidden, layers, text["num_attention_heads"], vocabulary, text["max_position_embeddings"],
        table, 0 if tied else table, attention_parameters + linear_parameters + (2 * layers + 1) * hidden,
        inner.dense, inner.experts, vision.parameters(name, whole), inner.count, inner.per_token, inner.mlp_width,
        inner.expert_width, kinds, pair_flops, window_flops)


def _grouped(name: str, text: Config, whole: Config) -> Architecture:
    """Keys and values of their own in every layer, all of them, the last ones, or a chunk."""
    kinds, parameters, pairs, window = attention.grouped(name, text)
    return _build(name, text, whole, kinds, parameters, 0, pairs, window)


def _latent(name: str, text: Config, whole: Config) -> Architecture:
    """Multi-head latent attention in every layer."""
    kinds, parameters, pairs = attention.latent(text, text["num_hidden_layers"])
    return _build(name, text, whole, kinds, parameters, 0, pairs, 0.0)


def _compressed(name: str, text: Config, whole: Config) -> Architecture:
    kinds, parameters, pairs, window = attention.compressed(text)
    return _build(name, text, whole, kinds, parameters, 0, pairs, window)


def _delta_net(name: str, text: Config, whole: Config) -> Architecture:
    """Gated DeltaNet with gated full attention in every few layers."""
    full = linear.full_layers(text)
    kinds, parameters, pairs, window = attention.grouped(name, {**text, "layer_types": None}, full)
    states, more = linear.delta_net(text, text["num_hidden_layers"] - full)
    return _build(name, text, whole, (*kinds, *states), parameters, more, pairs, window)


def _kimi_linear(name: str, text: Config, whole: Config) -> Architecture:
    """Kimi Delta Attention with latent attention in every few layers."""
    full = len(text["linear_attn_config"]["full_attn_layers"])
    kinds, parameters, pairs = attention.latent(text, full)
    states, more = linear.kimi_delta(text, text["num_hidden_layers"] - full)
    return _build(name, text, whole, (*kinds, *states), parameters, more, pairs, 0.0)


_KNOWN: dict[str, Callable[[str, Config, Config], Architecture]] = {
    **dict.fromkeys((
        "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
        "SeedOssForCausalLM", "GptOssForCausalLM", "Llama4ForCausalLM", "Llama4ForConditionalGeneration",
        "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"), _grouped),
    **dict.fromkeys(("DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM", "KimiK25ForConditionalGeneration"), _latent),
    "DeepseekV4ForCausalLM": _compressed,
    **dict.fromkeys((
        "Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM", "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration"), _delta_net),
    "KimiK3ForConditionalGeneration": _kimi_linear,
}
