"""The fleet file: which models run on which accelerators, for whom, and what they promise.

One frozen value describes the whole fleet; laptop, GPU box, load test and cost report all read the same one.
`load` is the only file read of this package's rooms.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from serving.fleet import prices
from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.config import Strict, read, wrong_reference

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: use 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a-z or 0-9")
    return value


Name = Annotated[str, AfterValidator(_name)]
Scalar = str | int | float | bool | None
Role = Literal["same_model_hosted", "cheapest_proprietary", "frontier"]


class EngineSpec(Strict):
    """How vLLM runs the model. Fields are the ones Flotilla itself reasons about; `args` passes the rest through."""

    max_model_len: int = Field(4096, ge=16, description="Longest prompt plus output, tokens.")
    max_num_seqs: int = Field(64, ge=1, description="Most requests that the engine runs at once.")
    tensor_parallel_size: int = Field(1, ge=1, description="Devices that share one replica's layers.")
    kv_cache_mib: int | None = Field(None, ge=1, description="Memory for the KV cache, MiB. Empty: vLLM decides.")
    tool_call_parser: str | None = Field(None, description="vLLM's parser for tool calls; switches tool calls on.")
    reasoning_parser: str | None = Field(None, description="vLLM's parser that separates reasoning from content.")
    args: dict[str, Any] = Field(default_factory=dict, description="Further vLLM engine arguments, as vLLM names them.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the engine's processes.")

    @field_validator("args")
    @classmethod
    def _not_ours(cls, args: dict[str, Any]) -> dict[str, Any]:
        ours = {"max_model_len", "max_num_seqs", "tensor_parallel_size", "tool_call_parser", "reasoning_parser"}
        taken = {"model", "served_model_name", "scheduler_cls", "distributed_executor_backend", "additional_config"}
        for key in args:
            if key in ours:
                raise ValueError(f"{key!r} has a field of its own; move it from args to engine")
            if key in taken:
                raise ValueError(f"{key!r} is set by Flotilla and cannot be changed here")
        return args


class ReplicaRange(Strict):
    """How many replicas a model has."""

    min: int = Field(1, ge=1, description="Replicas that always run.")
    max: int = Field(1, ge=1, description="Most replicas that may run. Nothing scales by itself yet: min run.")

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self


class Slo(Strict):
    """What the model promises to a caller, at the percentile that the load test's scenario asks for."""

    ttft_ms: float = Field(gt=0, description="Time to first token, milliseconds.")
    tpot_ms: float = Field(gt=0, description="Time per output token after the first, milliseconds.")


class Comparator(Strict):
    """An API that could answer this model's traffic instead."""

    price: str = Field(description="Name in the price book.")
    role: Role = Field(description="What the comparison shows: the same model hosted, the cheapest adequate, the best.")


class ModelSpec(Strict):
    """One open model of the fleet."""

    source: str = Field(description="Hub id, path of a checkpoint, or small:FAMILY for random weights made here.")
    revision: str | None = Field(None, description="Pinned revision of a hub id.")
    architecture: str = Field(description="Architecture class, as in the checkpoint's config.json.")
    accelerator: Name = Field(description="Accelerator profile that a replica runs on.")
    engine: EngineSpec = Field(default_factory=EngineSpec)
    replicas: ReplicaRange = Field(default_factory=ReplicaRange)
    slo: Slo
    aliases: tuple[Name, ...] = Field((), description="Further names that route to this model.")
    comparators: tuple[Comparator, ...] = Field((), description="APIs whose prices the traffic is held against.")

    @field_validator("aliases", "comparators", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @property
    def small_family(self) -> str | None:
        """The family of a checkpoint made here, or None for real weights."""
        return self.source.removeprefix("small:") if self.source.startswith("small:") else None

    @property
    def devices(self) -> int:
        """Devices that one replica occupies."""
        return self.engine.tensor_parallel_size


class TenantSpec(Strict):
    """A team that uses the fleet. Its keys live in the ledger, hashed."""

    description: str = Field("", description="Who this is, for people.")


class GatewaySpec(Strict):
    """The API's door."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    replicas: int = Field(1, ge=1, description="Gateway processes.")
    max_body_mib: float = Field(20.0, gt=0, description="Longest request body, MiB; above it the answer is 413.")
    request_timeout_s: float = Field(600.0, gt=0, description="Longest time for one answer, seconds.")

    @property
    def max_body_bytes(self) -> int:
        """Longest request body, bytes."""
        return int(self.max_body_mib * 1024 * 1024)


class MetricsSpec(Strict):
    """Where Prometheus scrapes."""

    host: str = Field("127.0.0.1", description="Address of the exporter.")
    port: int = Field(9464, ge=1, le=65535, description="Port of the exporter.")


class Fleet(Strict):
    """A whole fleet, as its file says."""

    name: Name
    prices: str = Field(description="Price book of API models, relative to the fleet file.")
    accelerators: dict[Name, AcceleratorProfile] = Field(min_length=1)
    models: dict[Name, ModelSpec] = Field(min_length=1)
    tenants: dict[Name, TenantSpec] = Field(min_length=1)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    metrics: MetricsSpec = Field(default_factory=MetricsSpec)

    @field_validator("models")
    @classmethod
    def _names_are_distinct(cls, models: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        owner = {name: name for name in models}
        for name, model in models.items():
            for alias in model.aliases:
                if alias in owner:
                    raise ValueError(f"alias {alias!r} of {name!r} already names {owner[alias]!r}; choose another")
                owner[alias] = name
        return models

    @model_validator(mode="after")
    def _references_exist(self, info: ValidationInfo) -> Fleet:
        book = (info.context or {}).get("book")
        families = (info.context or {}).get("small_families", ())
        for name, model in self.models.items():
            if model.accelerator not in self.accelerators:
                raise wrong_reference(("models", name, "accelerator"), model.accelerator, self.accelerators)
            if families and model.small_family is not None and model.small_family not in families:
                raise wrong_reference(("models", name, "source"), model.small_family, families)
            for index, comparator in enumerate(model.comparators if book else ()):
                if comparator.price not in book.prices:
                    at = ("models", name, "comparators", index, "price")
                    raise wrong_reference(at, comparator.price, book.prices)
        return self

    def price_nanousd_per_hour(self, model: str) -> int:
        """Price of one replica of `model` for an hour, nano-USD."""
        spec = self.models[model]
        return self.accelerators[spec.accelerator].price_nanousd_per_hour(spec.devices)


def load(path: Path, small_families: tuple[str, ...] = ()) -> Fleet:
    """Read and check a fleet file and the price book it names.

    `small_families`: families that `small:` may name; empty skips that check.
    Raises: ConfigError, which names the file, the line, the key and the nearest right name.
    """
    bare = read(path, Fleet)
    return read(path, Fleet, {"book": price_book(bare, path), "small_families": small_families})


def price_book(fleet: Fleet, path: Path) -> prices.PriceBook:
    """The price book that the fleet file at `path` names."""
    return prices.load(path.parent / fleet.prices)
