"""How long an engine step takes at best by a device's data sheet: an estimate, until a fitted profile replaces it.

The roofline model (Williams et al. 2009): a step takes the longer of computing and of moving bytes, here with the share
of each peak that engines reach in practice, plus what tensor-parallel devices send each other and a fixed cost for
launching. It knows nothing of kernels, of skewed experts or of the host; where a measured step model exists
(`stepmodel`), use that.

Sources of the terms: 2 FLOPs per parameter and token (Kaplan et al. 2020), attention FLOPs per token and context token,
bytes of weights read once per step, bytes of KV cache read per token of context (Pope et al. 2022, "Efficiently
scaling transformer inference"). Routed experts are read only as far as a step's tokens touch them, chosen evenly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.fleet.stepmodel import StepModel


@dataclass(frozen=True)
class ModelShape:
    """What one forward pass of a model costs, over the whole model (not one device).

    shared_parameters: that every token passes: attention, dense layers, shared experts, output head; no input table.
    expert_parameters: of all routed experts together; experts, experts_per_token: of one layer. bytes: as stored.
    attention_flops: per token and token of context, over the layers that attend to all of it. window_flops: the same
    over layers that attend to at most `window` tokens. cache_bytes: read per token of context, written per token.
    window_bytes: per token inside the window. state_bytes: read and written per request and step, whatever its context
    (linear attention). layers, hidden: how much devices exchange. precision: in which matrices are multiplied.
    """

    name: str
    layers: int
    hidden: int
    shared_parameters: float
    shared_bytes: float
    attention_flops: float
    cache_bytes: float
    expert_parameters: float = 0.0
    expert_bytes: float = 0.0
    experts: int = 0
    experts_per_token: int = 0
    window: int = 0
    window_flops: float = 0.0
    window_bytes: float = 0.0
    state_bytes: float = 0.0
    precision: str = "bf16"

    @property
    def active_parameters(self) -> float:
        """Parameters that one token passes."""
        routed = self.expert_parameters * self.experts_per_token / self.experts if self.experts else 0.0
        return self.shared_parameters + routed

    def weight_bytes_read(self, tokens: int) -> float:
        """Bytes of weights that a step of so many tokens reads, experts chosen evenly and independently."""
        if not self.experts:
            return self.shared_bytes
        untouched = (1 - self.experts_per_token / self.experts) ** tokens
        return self.shared_bytes + self.expert_bytes * (1 - untouched)


@dataclass(frozen=True)
class AcceleratorSpec:
    """One device by its data sheet. flops: dense peak by precision, FLOP/s. bandwidth: of its memory, bytes/s. link: to
    the other devices of its host, bytes/s in one direction. memory: what the driver lets programs use, bytes. source:
    where the numbers are from."""

    name: str
    memory: float
    bandwidth: float
    flops: Mapping[str, float]
    link: float
    source: str = ""

    def peak(self, precision: str) -> float:
        """FLOP/s for matrices of a precision; what the device lacks is computed in bf16, from smaller weights."""
        return self.flops.get(precision, self.flops["bf16"])


@dataclass(frozen=True)
class Efficiency:
    """Which share of the peaks an engine reaches, and what a step costs besides. Assumptions, not measurements:
    0.5 of the FLOPs and 0.7 of the bandwidth are in the middle of what published LLM serving studies report."""

    compute: float = 0.5
    memory: float = 0.7
    link: float = 0.6
    step_s: float = 0.002
    message_s: float = 15e-6  # of one all-reduce, however short


TYPICAL = Efficiency()


@dataclass(frozen=True)
class Work:
    """What one step computes: new tokens, pairs of a token and an earlier one, tokens of context that it reads."""

    tokens: int
    pairs: float
    context: float
    requests: int = 1


def step_seconds(shape: ModelShape, device: AcceleratorSpec, work: Work, devices: int = 1,
                 efficiency: Efficiency = TYPICAL) -> float:
    """Seconds of one engine step on `devices` that share every layer (tensor or expert parallel)."""
    mean = work.context / work.requests if work.requests else 0.0
    share = min(1.0, shape.window / mean) if mean > 0 else 1.0  # of pairs and context that lie within the window
    flops = 2 * shape.active_parameters * work.tokens
    flops += work.pairs * (shape.attention_flops + share * shape.window_flops)
    moved = shape.weight_bytes_read(work.tokens) + (work.context + work.tokens) * shape.cache_bytes
    moved += (work.context * share + work.tokens) * shape.window_bytes + 2 * work.requests * shape.state_bytes
    compute = flops / (device.peak(shape.precision) * efficiency.compute * devices)
    memory = moved / (device.bandwidth * efficiency.memory * devices)
    return max(compute, memory) + _exchange(shape, device, work.tokens, devices, efficiency) + efficiency.step_s


def prefill_seconds(shape: ModelShape, device: AcceleratorSpec, tokens: int, context: int = 0, devices: int = 1,
                    efficiency: Efficiency = TYPICAL) -> float:
    """Seconds to compute one prompt chunk of `tokens` on top of `context` tokens already in the cache."""
    pairs = tokens * (context + (tokens - 1) / 2)
    return step_seconds(shape, device, Work(tokens, pairs, context or tokens), devices, efficiency)


def decode_seconds(shape: ModelShape, device: AcceleratorSpec, requests: int, context: int, devices: int = 1,
                   efficiency: Efficiency = TYPICAL) -> float:
    """Seconds of a step that gives each of `requests` one token, each with `context` tokens before it."""
    total = requests * context
    return step_seconds(shape, device, Work(requests, total, total, requests), devices, efficiency)


@dataclass(frozen=True)
class Rates:
    """Tokens per second of one replica, an estimate. decode_per_request: what one caller sees at that batch."""

    prefill: float
    decode: float
    decode_per_request: float
    estimate: str = field(default="roofline", init=False)


def rates(shape: ModelShape, device: AcceleratorSpec, requests: int, context: int, devices: int = 1,
          chunk: int = 8192, efficiency: Efficiency = TYPICAL) -> Rates:
    """Prefill rate in chunks of `chunk` tokens, decode rate of `requests` with `context` tokens each."""
    prompt = min(chunk, max(context, 1))
    step = decode_seconds(shape, device, requests, context, devices, efficiency)
    prefill = prompt / prefill_seconds(shape, device, prompt, 0, devices, efficiency)
    return Rates(prefill, requests / step, 1 / step)


def step_model(shape: ModelShape, device: AcceleratorSpec, devices: int = 1, requests: int = 32,
               efficiency: Efficiency = TYPICAL) -> StepModel:
    """The same device as an affine step model, seconds, for programs that compute with those.

    Terms are added instead of maximised, so it is the slower one, at most twofold. Experts are read as `requests`
    tokens touch them; windows and states count into the fixed part at their full size.
    """
    compute = device.peak(shape.precision) * efficiency.compute * devices
    memory = device.bandwidth * efficiency.memory * devices
    fixed = shape.weight_bytes_read(requests) + requests * (
        shape.window * shape.window_bytes + 2 * shape.state_bytes)
    per_token = _exchange(shape, device, 1, devices, efficiency) - _exchange(shape, device, 0, devices, efficiency)
    return StepModel(
        fixed=fixed / memory + efficiency.step_s + _exchange(shape, device, 0, devices, efficiency),
        token=2 * shape.active_parameters / compute + shape.cache_bytes / memory + per_token,
        attention=shape.attention_flops / compute,
        cache=shape.cache_bytes / memory,
    )


def _exchange(shape: ModelShape, device: AcceleratorSpec, tokens: int, devices: int, efficiency: Efficiency) -> float:
    """Seconds for two all-reduces of 16-bit activations per layer, as a ring sends them."""
    if devices == 1:
        return 0.0
    sent = 2 * shape.layers * tokens * shape.hidden * 2 * 2 * (devices - 1) / devices
    return sent / (device.link * efficiency.link) + 2 * shape.layers * efficiency.message_s
