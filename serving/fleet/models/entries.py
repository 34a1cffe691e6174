"""The catalogue: one file per open model with what a team must know before it serves the model, and where each fact is
from.

`deployments/catalogue/<family>/<model>.yaml` is named `<family>/<model>` in a fleet file. Facts that no one could check
stand under `unverified`; a number that is not known is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from serving.errors import ConfigError, nearest
from serving.fleet.config import Strict, read
from serving.fleet.costspecs import Comparator
from serving.fleet.models.architecture import Architecture, describe
from serving.fleet.models.weights import Format, Precision, Split
from serving.fleet.specs import as_tuple

Modality = Literal["text", "image", "video", "audio"]
Endpoint = Literal["chat", "completions", "responses", "messages", "embeddings", "rerank", "score", "tokenize"]


def _revision(value: str) -> str:
    if len(value) != 40 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{value!r} is not a revision: 40 hexadecimal digits of a commit")
    return value


Revision = Annotated[str, AfterValidator(_revision)]


class Licence(Strict):
    """Under which conditions the weights may be used."""

    name: str = Field(description="Its name, as an SPDX identifier where there is one.")
    gated: bool = Field(description="Whether the hub asks for an account and consent before it gives the weights out.")
    conditions: str = Field("", description="What it asks for beyond naming the authors; empty: nothing of note.")


class Parameters(Strict):
    """Parameter counts as their makers publish them, in billions."""

    total: float = Field(gt=0, description="All parameters.")
    active: float = Field(gt=0, description="Parameters that one token passes.")


class Weights(Strict):
    """One checkpoint of the model."""

    source: str = Field(description="Hub id of the checkpoint.")
    revision: Revision | None = Field(None, description="Pinned commit of it.")
    linear: Precision = Field("bf16", description="Precision of attention, dense layers and shared experts.")
    experts: Precision | None = Field(None, description="Precision of routed experts; empty: as linear.")
    size_gb: float | None = Field(None, gt=0, description="Size of the files as published, 10^9 bytes.")
    loaded_gib: float | None = Field(None, gt=0, description="What the loaded model takes as an engine's log said it, "
                                                             "GiB over all devices; for layouts that grow.")
    note: str = Field("", description="Where size_gb and loaded_gib are from, and what is special.")

    @property
    def format(self) -> Format:
        """How it stores matrices."""
        return Format(self.linear, self.experts or self.linear)

    @property
    def loaded_bytes(self) -> float | None:
        """`loaded_gib` in bytes."""
        return self.loaded_gib * 1024**3 if self.loaded_gib else None


class Sampling(Strict):
    """How the makers recommend to sample."""

    temperature: float = Field(ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0)
    when: str = Field("", description="In which mode, where a model has several.")


class Variant(Strict):
    """One way to run the model on one kind of accelerator."""

    accelerator: str = Field(description="Name in the accelerator price book.")
    count: int = Field(ge=1, description="Devices of one replica.")
    precision: str = Field(description="Which of the entry's weights.")
    tensor_parallel: int = Field(1, ge=1)
    pipeline_parallel: int = Field(1, ge=1)
    data_parallel: int = Field(1, ge=1)
    expert_parallel: bool = False
    max_model_len: int = Field(ge=16, description="Longest prompt plus output, tokens.")
    max_num_seqs: int = Field(64, ge=1, description="Most requests at once.")
    args: dict[str, Any] = Field(default_factory=dict, description="Further vLLM engine arguments.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the engine.")
    recommended_by: str = Field(description="Who recommends this, or that it was only computed here.")

    @model_validator(mode="after")
    def _devices_add_up(self) -> Variant:
        product = self.tensor_parallel * self.pipeline_parallel * self.data_parallel
        if product != self.count:
            raise ValueError(f"tensor_parallel x pipeline_parallel x data_parallel is {product}, count is {self.count}")
        return self

    @property
    def split(self) -> Split:
        """How its devices share the model."""
        return Split(self.tensor_parallel, self.pipeline_parallel, self.data_parallel, self.expert_parallel)

    @property
    def name(self) -> str:
        """As `H100 x2 fp8`."""
        return f"{self.accelerator}{f' x{self.count}' if self.count > 1 else ''} {self.precision}"


class Entry(Strict):
    """One model of the catalogue."""

    title: str = Field(description="The model's name as its makers write it.")
    maker: str
    licence: Licence
    released: str = Field("", description="Month of release, YYYY-MM, where known.")
    architecture: str = Field(description="Architecture class, as in config.json.")
    parameters: Parameters
    config: dict[str, Any] = Field(description="The keys of config.json that decide sizes, as they stand there.")
    context: int = Field(ge=16, description="Longest context, tokens, that the checkpoint allows as it is.")
    modalities: tuple[Modality, ...] = Field(min_length=1)
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str = Field("", description="What callers must know of the chat template.")
    sampling: tuple[Sampling, ...] = ()
    args: dict[str, Any] = Field(default_factory=dict, description="Engine arguments that every variant needs.")
    limits: tuple[str, ...] = Field((), description="Known limits, this vLLM's and this CPU's among them.")
    small: str | None = Field(None, description="The family of a small random checkpoint that stands in for it here.")
    weights: dict[str, Weights] = Field(min_length=1, description="Checkpoints by the names that variants use.")
    variants: tuple[Variant, ...] = Field(min_length=1)
    comparators: tuple[Comparator, ...] = ()
    sources: dict[str, str] = Field(min_length=1, description="Where which facts are from.")
    unverified: tuple[str, ...] = Field((), description="What could not be checked, and why it stands here anyway.")

    _name: str = PrivateAttr("")
    _size: Architecture | None = PrivateAttr(None)
    _lists = field_validator("modalities", "endpoints", "sampling", "limits", "variants", "comparators", "unverified",
                             mode="before")(as_tuple)

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        for variant in self.variants:
            if variant.precision not in self.weights:
                near = nearest(variant.precision, self.weights)
                raise ValueError(f"variant {variant.name}: no weights {variant.precision!r}; "
                                 + (f"did you mean {near!r}?" if near else f"there are {', '.join(self.weights)}"))
            if variant.max_model_len > self.context:
                raise ValueError(f"variant {variant.name}: max_model_len {variant.max_model_len} is above the model's "
                                 f"context of {self.context}")
        try:
            self._size = describe(self.config | {"architectures": [self.architecture]}, "config")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def name(self) -> str:
        """As fleet files name it: `family/model`."""
        return self._name

    @property
    def size(self) -> Architecture:
        """Parameters and cache, computed from `config`."""
        assert self._size is not None
        return self._size

    @property
    def pooling(self) -> bool:
        """Whether it gives vectors or scores, not text."""
        return self.args.get("runner") == "pooling"

    @property
    def formats(self) -> dict[str, tuple[Format, float | None]]:
        """How each checkpoint stores matrices, and the bytes it takes loaded where a log says so."""
        return {name: (w.format, w.loaded_bytes) for name, w in self.weights.items()}


class Catalogue(Mapping[str, Entry]):
    """The entries of one folder, read when asked for: a fleet needs a few of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Entry] = {}
        self._names = tuple(sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.glob("*/*.yaml")))

    def __getitem__(self, name: str) -> Entry:
        """An entry. Raises: ConfigError, also KeyError's base for a name that is not there: use `named`."""
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            entry = read(self._folder / f"{name}.yaml", Entry)
            entry._name = name
            self._read[name] = entry
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, name: str) -> Entry:
        """An entry by its name, or by its last part or a hub id where that is one entry's alone. Raises: ConfigError.
        """
        if name in self._names:
            return self[name]
        short = name.rsplit("/", 1)[-1].lower()
        found = [full for full in self._names if full.rsplit("/", 1)[-1] == short]
        if len(found) == 1:
            return self[found[0]]
        near = nearest(name.lower(), self._names) or nearest(short, [n.rsplit("/", 1)[-1] for n in self._names])
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(self._names) or 'none'}"
        raise ConfigError(f"the catalogue {self._folder} has no model {name!r}; {hint}")

    def with_source(self, source: str) -> Entry | None:
        """The entry that has a checkpoint of that hub id; None where none has. Raises: ConfigError."""
        return next((e for e in self.values() if any(w.source == source for w in e.weights.values())), None)


def load(folder: Path) -> Catalogue:
    """The catalogue in a folder. Raises: ConfigError when it is none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no catalogue of models; it is a folder of <family>/<model>.yaml")
    return Catalogue(folder)
