"""Bytes of weights by precision and by device.

A checkpoint quantises matrices, some of them only: routed experts, or all linear layers; tables, norms and image
encoders stay in 16 bits. Bits include the scales. What the loaded model takes beside (padding, repacked layouts) is
known only from an engine's log; a catalogue entry may state it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from serving.fleet.models.architecture import Architecture

Precision = Literal["bf16", "fp8", "nvfp4", "mxfp4", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# bits of a weight with its share of the scales
_BITS: dict[str, float] = {
    "bf16": 16.0,
    "fp8": 8 + 32 / 128**2,   # a 32-bit scale per block of 128 x 128
    "nvfp4": 4 + 8 / 16,      # an 8-bit scale per 16
    "mxfp4": 4 + 8 / 32,      # an 8-bit scale per 32
    "int4": 4 + 16 / 32,      # a 16-bit scale per 32
}


@dataclass(frozen=True)
class Format:
    """How a checkpoint stores its matrices: `linear` (attention, dense layers, shared experts), `experts` (routed)."""

    linear: Precision = "bf16"
    experts: Precision = "bf16"

    @property
    def compute(self) -> str:
        """In which precision most matrices are multiplied, where the device can."""
        return self.experts if self.experts != "bf16" else self.linear


@dataclass(frozen=True)
class Split:
    """How a replica's devices share a model. expert: experts are spread over tensor and data parallel devices."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.pipeline * self.data


def checkpoint_bytes(model: Architecture, form: Format) -> float:
    """Bytes of all weights."""
    tables = (model.embedding + model.head + model.vision) * 2.0
    linear = (model.attention + model.dense) * _BITS[form.linear] / 8
    return tables + linear + model.experts * _BITS[form.experts] / 8


def device_bytes(model: Architecture, form: Format, split: Split) -> float:
    """Bytes of weights on the fullest device. Pipeline stages count as equal; image encoders are on every device."""
    tables = (model.embedding + model.head) * 2.0 / split.tensor / min(split.pipeline, 2)
    linear = (model.attention + model.dense) * _BITS[form.linear] / 8 / split.tensor / split.pipeline
    over = split.tensor * split.data if split.expert else split.tensor
    return tables + linear + model.experts * _BITS[form.experts] / 8 / over / split.pipeline + model.vision * 2.0


def misfit(model: Architecture, form: Format, split: Split) -> str | None:
    """Why a model cannot be split so, or None: heads must divide, and blocks of fp8 must not be cut."""
    if model.heads % split.tensor:
        return f"its {model.heads} attention heads cannot be shared out over {split.tensor} devices"
    width = model.expert_width if model.n_experts else 0
    if form.experts == "fp8" and width and not split.expert and width % (128 * split.tensor):
        return (f"its experts are {width} wide and fp8 comes in blocks of 128, which {split.tensor} devices would cut; "
                "use expert parallelism or fewer devices")
    if split.pipeline > model.layers:
        return f"it has {model.layers} layers only"
    return None
