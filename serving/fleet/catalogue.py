"""The fleet file: which models run on which accelerators, for whom, and what they promise.

One frozen value describes the whole fleet; laptop, GPU box, load test and cost report all read the same one.
`load` is the only file read of this package's rooms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from serving.fleet import prices
from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.config import Strict, read, wrong_reference, wrong_value
from serving.fleet.specs import AdapterSpec, GatewaySpec, Name, OverloadSpec, RouteSpec, TenantSpec, as_tuple

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

    min: int = Field(1, ge=0, description="Replicas that always run. 0: none until someone asks for the model.")
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
    adapters: dict[Name, AdapterSpec] = Field(default_factory=dict, description="LoRA adapters, asked for as "
                                              "model:adapter.")
    fallback: tuple[str, ...] = Field((), description="Models asked instead, in this order, while this one is down, "
                                      "full or at zero.")
    routing: Literal["prefix", "least_loaded", "round_robin"] = Field(
        "prefix", description="Which replica: the one that has seen the conversation, the least busy, or by turns.")
    overload: OverloadSpec = Field(default_factory=OverloadSpec)
    comparators: tuple[Comparator, ...] = Field((), description="APIs whose prices the traffic is held against.")

    _lists = field_validator("aliases", "comparators", "fallback", mode="before")(as_tuple)

    @property
    def small_family(self) -> str | None:
        """The family of a checkpoint made here, or None for real weights."""
        return self.source.removeprefix("small:") if self.source.startswith("small:") else None

    @property
    def small_adapters(self) -> tuple[str, ...]:
        """Names of the adapters made here; they fit a checkpoint made here only."""
        return tuple(name for name, adapter in self.adapters.items() if adapter.small_kind is not None)

    @property
    def devices(self) -> int:
        """Devices that one replica occupies."""
        return self.engine.tensor_parallel_size


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
    routes: dict[Name, RouteSpec] = Field(default_factory=dict)
    tenants: dict[Name, TenantSpec] = Field(min_length=1)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    metrics: MetricsSpec = Field(default_factory=MetricsSpec)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Fleet:
        owner = {name: ("models", name) for name in self.models}
        for name in self.routes:
            if name in owner:
                raise wrong_value(("routes", name), f"{name!r} is a model already; choose another name for the route")
            owner[name] = ("routes", name)
        named = [("models", n, m.aliases) for n, m in self.models.items()]
        for kind, name, aliases in [*named, *(("routes", n, r.aliases) for n, r in self.routes.items())]:
            for index, alias in enumerate(aliases):
                if alias in owner:
                    raise wrong_value((kind, name, "aliases", index),
                                      f"alias {alias!r} of {name!r} already names {owner[alias][1]!r}; choose another")
                owner[alias] = (kind, name)
        return self

    @model_validator(mode="after")
    def _references_exist(self, info: ValidationInfo) -> Fleet:
        book = (info.context or {}).get("book")
        families = (info.context or {}).get("small_families", ())
        kinds = (info.context or {}).get("small_adapters", ())
        for name, model in self.models.items():
            if model.accelerator not in self.accelerators:
                raise wrong_reference(("models", name, "accelerator"), model.accelerator, self.accelerators)
            if families and model.small_family is not None and model.small_family not in families:
                raise wrong_reference(("models", name, "source"), model.small_family, families)
            for index, comparator in enumerate(model.comparators if book else ()):
                if comparator.price not in book.prices:
                    at = ("models", name, "comparators", index, "price")
                    raise wrong_reference(at, comparator.price, book.prices)
            for adapter in model.small_adapters:
                at, kind = ("models", name, "adapters", adapter, "source"), model.adapters[adapter].small_kind
                if kinds and kind not in kinds:
                    raise wrong_reference(at, kind, kinds)
                if model.small_family is None:
                    raise wrong_value(at, f"small:{kind} fits a model whose own source is small: only; {name!r} has "
                                          f"{model.source!r}")
        self._check_names()
        return self

    def _check_names(self) -> None:
        """Fallbacks, routes and tenants name what there is."""
        for name, model in self.models.items():
            for index, other in enumerate(model.fallback):
                at = ("models", name, "fallback", index)
                if other not in self.models:
                    raise wrong_reference(at, other, self.models)
                if other == name or other in model.fallback[:index]:
                    raise wrong_value(at, f"{other!r} is asked already; name each model once, and not {name!r} itself")
        for name, route in self.routes.items():
            for variant in route.variants:
                if variant not in self.models:
                    raise wrong_reference(("routes", name, "variants", variant), variant, self.models)
        known = self.callable_names()
        for name, tenant in self.tenants.items():
            for index, allowed in enumerate(tenant.models or ()):
                if allowed not in known:
                    raise wrong_reference(("tenants", name, "models", index), allowed, known)

    def callable_names(self) -> dict[str, str]:
        """Every name that a request may carry, to the name it stands for: models, routes, adapters, aliases."""
        found: dict[str, str] = {}
        for name, model in self.models.items():
            for given in (name, *model.aliases):
                found[given] = name
                found |= {f"{given}:{adapter}": f"{name}:{adapter}" for adapter in model.adapters}
        for name, route in self.routes.items():
            found |= dict.fromkeys((name, *route.aliases), name)
        return found

    def price_nanousd_per_hour(self, model: str) -> int:
        """Price of one replica of `model` for an hour, nano-USD."""
        spec = self.models[model]
        return self.accelerators[spec.accelerator].price_nanousd_per_hour(spec.devices)


def load(path: Path, small_families: tuple[str, ...] = (), small_adapters: tuple[str, ...] = ()) -> Fleet:
    """Read and check a fleet file and the price book it names.

    `small_families`, `small_adapters`: what `small:` may name in a model's and in an adapter's source; empty skips that
    check.
    Raises: ConfigError, which names the file, the line, the key and the nearest right name.
    """
    bare = read(path, Fleet)
    return read(path, Fleet, {"book": price_book(bare, path), "small_families": small_families,
                              "small_adapters": small_adapters})


def price_book(fleet: Fleet, path: Path) -> prices.PriceBook:
    """The price book that the fleet file at `path` names."""
    return prices.load(path.parent / fleet.prices)
