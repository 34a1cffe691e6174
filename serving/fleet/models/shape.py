"""A model's size as the roofline wants it."""

from __future__ import annotations

from dataclasses import replace

from serving.fleet.models.architecture import Architecture
from serving.fleet.models.cache import token_bytes
from serving.fleet.models.weights import Format, checkpoint_bytes
from serving.fleet.roofline import ModelShape


def model_shape(name: str, model: Architecture, form: Format, cache_element_bytes: int = 2) -> ModelShape:
    """What a forward pass of the model costs with weights of that format and a cache of so many bytes per element."""
    table = 0 if model.head == 0 else model.embedding * 2  # a tied table is read as output matrix
    experts = checkpoint_bytes(model, form) - checkpoint_bytes(_without_experts(model), form)
    windowed = [k for k in model.cache if k.window]
    return ModelShape(
        name, model.layers, model.hidden,
        shared_parameters=(model.head or model.embedding) + model.attention + model.dense,
        shared_bytes=checkpoint_bytes(_without_experts(model), form) - table - 2 * model.vision,
        attention_flops=model.pair_flops,
        cache_bytes=token_bytes(model.cache, cache_element_bytes),
        expert_parameters=model.experts, expert_bytes=experts, experts=model.n_experts,
        experts_per_token=model.experts_per_token,
        window=max((k.window for k in windowed), default=0), window_flops=model.window_flops,
        window_bytes=sum(k.layers * k.token_bytes(cache_element_bytes) for k in windowed),
        state_bytes=sum(k.layers * k.state_bytes() for k in model.cache),
        precision=form.compute,
    )


def _without_experts(model: Architecture) -> Architecture:
    return replace(model, experts=0)
