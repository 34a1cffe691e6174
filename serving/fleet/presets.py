"""Prompt presets: a name that a product team calls, with a system prompt, sampling defaults and tools behind it.

A preset has versions, each complete in itself, so that what `shopping-assistant@1` does never changes while
`shopping-assistant` moves on to the next. May not happen in here: HTTP, or how an endpoint spells a field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from serving.fleet.config import Strict, wrong_reference, wrong_value
from serving.fleet.specs import Name, as_tuple

AT = "@"  # between a preset's name and a version of it
_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CHOICES = ("auto", "none", "required")


def _tool_name(value: str) -> str:
    if not _TOOL.fullmatch(value):
        raise ValueError(f"{value!r} is not a tool's name: use 1 to 64 of a-z, A-Z, 0-9, '_' and '-'")
    return value


class ToolSpec(Strict):
    """A function that the model may ask the caller to call."""

    name: Annotated[str, AfterValidator(_tool_name)]
    description: str = Field("", description="When and for what; the model reads it.")
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}},
                                       description="JSON Schema of its arguments.")


class SamplingSpec(Strict):
    """Defaults of how the answer is drawn. What an endpoint has no field for is left out there."""

    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, ge=1, description="Longest answer, tokens.")
    stop: tuple[str, ...] = Field((), description="Texts at which the answer ends.")
    seed: int | None = None

    _lists = field_validator("stop", mode="before")(as_tuple)


class CallerRights(Strict):
    """What becomes of fields that the caller sends where the preset has them too."""

    system: Literal["refuse", "add", "win"] = Field(
        "refuse", description="The caller's own system prompt: refused, put behind the preset's, or taken instead.")
    sampling: Literal["win", "refuse"] = Field(
        "win", description="Sampling fields: the caller's count, or are refused. A smaller max_tokens always counts.")
    tools: Literal["add", "win", "refuse"] = Field(
        "add", description="Tools: put behind the preset's, taken instead, or refused.")


class PresetVersion(Strict):
    """One version of a preset, complete in itself."""

    model: str = Field(description="Model, alias, route or model:adapter that answers.")
    system: str = Field("", description="System prompt.")
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = Field(None, description="auto, none, required, or the name of a tool of the preset.")
    caller: CallerRights = Field(default_factory=CallerRights)

    _lists = field_validator("tools", mode="before")(as_tuple)

    @model_validator(mode="after")
    def _tools_are_there(self) -> PresetVersion:
        names = [tool.name for tool in self.tools]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the tool {twice!r} stands there twice; keep one")
        if self.tool_choice is not None and self.tool_choice not in (*_CHOICES, *names):
            known = ", ".join((*_CHOICES, *names))
            raise ValueError(f"tool_choice {self.tool_choice!r} is neither a choice nor a tool of the preset; "
                             f"known: {known}")
        return self

    @property
    def digest(self) -> str:
        """Twelve hex digits that stand for all that this version says."""
        said = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()[:12]


class PresetSpec(Strict):
    """A preset: asked for by its name, or by name@version."""

    description: str = Field("", description="What it is for, for people.")
    current: Name | None = Field(None, description="Version that the bare name means. Left out: the last one.")
    versions: dict[Name, PresetVersion] = Field(min_length=1)

    @field_validator("versions", mode="before")
    @classmethod
    def _numbers_are_names(cls, versions: object) -> object:
        """`1:` is how people write a first version; YAML makes a number of it."""
        if not isinstance(versions, dict):
            return versions
        return {str(k) if isinstance(k, int) and not isinstance(k, bool) else k: v for k, v in versions.items()}

    @field_validator("current", mode="before")
    @classmethod
    def _number_is_a_name(cls, current: object) -> object:
        return str(current) if isinstance(current, int) and not isinstance(current, bool) else current

    @property
    def served(self) -> str:
        """The version that the bare name means."""
        return self.current or list(self.versions)[-1]


@dataclass(frozen=True)
class Preset:
    """A version of a preset, by name."""

    name: str
    version: str
    spec: PresetVersion

    @property
    def label(self) -> str:
        """`name@version`: what the ledger knows it by."""
        return f"{self.name}{AT}{self.version}"


def names(presets: Mapping[str, PresetSpec]) -> dict[str, Preset]:
    """Every name of a preset that a request may carry, bare or with a version."""
    found: dict[str, Preset] = {}
    for name, spec in presets.items():
        found |= {f"{name}{AT}{version}": Preset(name, version, said) for version, said in spec.versions.items()}
        found[name] = found[f"{name}{AT}{spec.served}"]
    return found


def check(presets: Mapping[str, PresetSpec], known: Mapping[str, str], models: Mapping[str, Collection[str]],
          deaf: Iterable[str]) -> None:
    """Presets name what there is. `known`: names that a version's model may be, to what they stand for; `models`: which
    models answer each of those; `deaf`: models that read no tool calls. Raises: PydanticCustomError.
    """
    without = set(deaf)
    for name, spec in presets.items():
        if spec.current is not None and spec.current not in spec.versions:
            raise wrong_reference(("presets", name, "current"), spec.current, spec.versions)
        for version, said in spec.versions.items():
            at = ("presets", name, "versions", version)
            if said.model not in known:
                raise wrong_reference((*at, "model"), said.model, known)
            lacking = sorted(without & set(models[known[said.model]]))
            if said.tools and said.tool_choice != "none" and lacking:
                raise wrong_value((*at, "tools"), f"{lacking[0]!r}, which answers, reads no tool calls; give it "
                                  f"engine.tool_call_parser, or take the tools out")
