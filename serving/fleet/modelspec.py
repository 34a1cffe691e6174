"""The part of the fleet file about one model: its weights, how vLLM runs it, what it promises, what it is held against.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from serving.fleet.autoscaling.spec import ScalingSpec
from serving.fleet.config import Strict
from serving.fleet.costspecs import Comparator
from serving.fleet.limits import NO_LIMITS, LimitsSpec
from serving.fleet.models.entries import Licence
from serving.fleet.slos import Slo
from serving.fleet.specs import AdapterSpec, LoraSpec, Name, OverloadSpec, as_tuple


class EngineSpec(Strict):
    """How vLLM runs the model. Fields are the ones Flotilla itself reasons about; `args` passes the rest through."""

    max_model_len: int = Field(4096, ge=16, description="Longest prompt plus output, tokens.")
    max_num_seqs: int = Field(64, ge=1, description="Most requests that the engine runs at once.")
    tensor_parallel_size: int = Field(1, ge=1, description="Devices that share one replica's layers.")
    pipeline_parallel_size: int = Field(1, ge=1, description="Stages that a replica's layers are cut into, each on "
                                                             "tensor_parallel_size devices.")
    kv_cache_mib: int | None = Field(None, ge=1, description="Memory for the KV cache, MiB. Empty: vLLM decides.")
    tool_call_parser: str | None = Field(None, description="vLLM's parser for tool calls; switches tool calls on.")
    metering: Literal["steps", "window"] = Field(
        "steps", description="steps: vLLM's scheduler tells what every step worked on. window: for engines without "
        "that hook, time is shared in equal parts by the requests that are there.")
    reasoning_parser: str | None = Field(None, description="vLLM's parser that separates reasoning from content.")
    args: dict[str, Any] = Field(default_factory=dict, description="Further vLLM engine arguments, as vLLM names them.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the engine's processes.")

    @property
    def by_priority(self) -> bool:
        """Whether the engine serves requests by the class of their key. vLLM takes no priority otherwise."""
        return self.args.get("scheduling_policy", "priority") == "priority"

    @field_validator("args")
    @classmethod
    def _not_ours(cls, args: dict[str, Any]) -> dict[str, Any]:
        ours = {"max_model_len", "max_num_seqs", "tensor_parallel_size", "pipeline_parallel_size", "tool_call_parser",
                "reasoning_parser"}
        taken = {"model", "served_model_name", "scheduler_cls", "distributed_executor_backend", "additional_config"}
        ours_too = {"enable_lora": "lora", "max_lora_rank": "lora", "max_loras": "lora", "max_cpu_loras": "lora",
                    "allowed_media_domains": "media", "allowed_local_media_path": "media"}
        for key in args:
            if key in ours:
                raise ValueError(f"{key!r} has a field of its own; move it from args to engine")
            if key in ours_too:
                raise ValueError(f"{key!r} follows from the section {ours_too[key]!r} of the fleet file")
            if key in taken:
                raise ValueError(f"{key!r} is set by Flotilla and cannot be changed here")
        return args


class ReplicaRange(Strict):
    """How many replicas a model has."""

    min: int = Field(1, ge=0, description="Replicas that always run. 0: none until someone asks for the model.")
    max: int = Field(1, ge=1, description="Most replicas that may run.")

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self


class ModelSpec(Strict):
    """One open model of the fleet."""

    catalogue: str | None = Field(None, description="Entry of the catalogue, as family/model; what is left out here "
                                  "comes from it, accelerator and slo too.")
    precision: str | None = Field(None, description="Which of the entry's checkpoints; empty: its variant's.")
    licence: Licence | None = Field(None, description="Conditions of use of the weights; from the catalogue.")
    source: str = Field(description="Hub id, path of a checkpoint, or small:FAMILY for random weights made here.")
    revision: str | None = Field(None, description="Pinned revision of a hub id.")
    architecture: str = Field(description="Architecture class, as in the checkpoint's config.json.")
    accelerator: Name = Field(description="Accelerator profile that a replica runs on.")
    engine: EngineSpec = Field(default_factory=EngineSpec)
    replicas: ReplicaRange = Field(default_factory=ReplicaRange)
    scaling: ScalingSpec = Field(default_factory=ScalingSpec)
    slo: Slo
    aliases: tuple[Name, ...] = Field((), description="Further names that route to this model.")
    adapters: dict[Name, AdapterSpec] = Field(default_factory=dict, description="LoRA adapters, asked for as "
                                              "model:adapter.")
    lora: LoraSpec | None = Field(None, description="Room for adapters that are added while the fleet runs. Left out: "
                                                    "only the adapters above.")
    fallback: tuple[str, ...] = Field((), description="Models asked instead, in this order, while this one is down, "
                                      "full or at zero.")
    routing: Literal["prefix", "least_loaded", "round_robin"] = Field(
        "prefix", description="Which replica: the one that has seen the conversation, the least busy, or by turns.")
    overload: OverloadSpec = Field(default_factory=OverloadSpec)
    limits: LimitsSpec = Field(NO_LIMITS, description="What all tenants together may use of the model.")
    owner: Name | None = Field(None, description="Tenant that asked for the replicas that always run; with costs.idle: "
                                                 "owner it is charged with their idle time.")
    comparators: tuple[Comparator, ...] = Field((), description="APIs whose prices the traffic is held against, one of "
                                                                "each role.")

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
        return self.engine.tensor_parallel_size * self.engine.pipeline_parallel_size * self.data_ranks

    @property
    def data_ranks(self) -> int:
        """Data-parallel ranks of one replica."""
        data = self.engine.args.get("data_parallel_size", 1)
        return data if isinstance(data, int) and data > 0 else 1
