"""Engine profiles: what the simulator knows of one variant of a model, and where it knows it from.

A profile is fitted to a live run, computed from a published roofline, or written by hand, and says which. Times are
seconds, the step model is `serving.fleet.stepmodel`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import yaml
from pydantic import Field, field_validator, model_validator

from serving.errors import ConfigError, nearest
from serving.fleet.config import Strict
from serving.fleet.stepmodel import StepModel

Origin = Literal["fit", "roofline", "given"]


class EngineProfile(Strict):
    """One variant: a model on one kind of replica."""

    fixed_s: float = Field(ge=0, description="Of a step, whatever is in it.")
    token_s: float = Field(ge=0, description="Of a step, for each scheduled token.")
    attention_s: float = Field(ge=0, description="Of a step, for each scheduled token and token before it.")
    cache_s: float = Field(ge=0, description="Of a step, for each token of context it reads.")
    kv_tokens: int = Field(gt=0, description="Tokens whose keys and values fit.")
    block_tokens: int = Field(16, gt=0, description="Tokens of one KV block.")
    max_num_seqs: int = Field(64, ge=1, description="Most requests in a batch.")
    max_batched_tokens: int = Field(8_192, ge=1, description="Most tokens of one step.")
    max_model_len: int = Field(4_096, ge=16, description="Longest prompt plus output, tokens.")
    start_s: float = Field(60.0, ge=0, description="From the start of a replica's process until it takes requests.")
    request_s: float = Field(0.0, ge=0, description="Of a request's time to first token, what no engine step explains: "
                                                    "gateway, HTTP, tokenising.")
    token_wait_s: float = Field(0.0, ge=0, description="The same for each output token after the first.")
    origin: Origin = Field("given", description="Where the numbers are from.")
    source: str = Field("", description="The same in words.")

    @model_validator(mode="after")
    def _takes_time(self) -> EngineProfile:
        if self.fixed_s + self.token_s <= 0:
            raise ValueError("a step would take no time; fixed_s or token_s must be above 0")
        if self.kv_tokens < self.block_tokens:
            raise ValueError(f"kv_tokens ({self.kv_tokens}) is less than one block of {self.block_tokens}")
        return self

    @property
    def steps(self) -> StepModel:
        """The step model, in seconds."""
        return StepModel(self.fixed_s, self.token_s, self.attention_s, self.cache_s)

    @property
    def kv_blocks(self) -> int:
        """Whole KV blocks that fit."""
        return self.kv_tokens // self.block_tokens

    @property
    def longest(self) -> int:
        """The longest request that can run at all: prompt plus output, tokens."""
        return min(self.max_model_len, self.kv_blocks * self.block_tokens)


class Profiles(Strict):
    """A file of profiles, by `model@variant` (or `model`, for whatever it runs on)."""

    profiles: dict[str, EngineProfile] = Field(min_length=1)

    @field_validator("profiles")
    @classmethod
    def _named(cls, profiles: dict[str, EngineProfile]) -> dict[str, EngineProfile]:
        for name in profiles:
            if not name or name.count("@") > 1:
                raise ValueError(f"{name!r} is not model or model@variant")
        return profiles

    def has(self, model: str, variant: str) -> bool:
        """Whether there is one of a model's variant."""
        return f"{model}@{variant}" in self.profiles or model in self.profiles

    def of(self, model: str, variant: str) -> EngineProfile:
        """The profile of a model's variant. Raises: ConfigError, naming the nearest there is."""
        for name in (f"{model}@{variant}", model):
            if name in self.profiles:
                return self.profiles[name]
        near = nearest(f"{model}@{variant}", self.profiles)
        raise ConfigError(f"no engine profile for {model}@{variant}; "
                          + (f"the nearest is {near!r}" if near else f"there are: {', '.join(sorted(self.profiles))}")
                          + ". `flotilla profile fit REPORT` makes one from a load test")


def as_text(profiles: Mapping[str, EngineProfile]) -> str:
    """A file of profiles, as YAML."""
    return yaml.safe_dump({"profiles": {name: p.model_dump() for name, p in profiles.items()}}, sort_keys=False)
