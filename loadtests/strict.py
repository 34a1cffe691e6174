"""Strict, frozen documents from YAML, with errors that point at the line.

One base class and one reader for every file a person writes. An unknown key is an error that names the key,
its line and the nearest right name; a key given twice is an error too (YAML would silently keep the last).
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from loadtests.errors import ScenarioError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of the documents: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, value: Any) -> Any:
        # pydantic's own "extra forbidden" does not know the neighbouring names.
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise PydanticCustomError("unknown_key", "{text}", unknown_key(key, cls.model_fields))
        return value


def unknown_key(key: object, known: Sequence[str] | Any) -> dict[str, str]:
    """Context of an "unknown key" error: the key and a text with the nearest right name, or all of them."""
    text = f"unknown key {key!r}"
    near = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    text += f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
    return {"key": str(key), "text": text}


@dataclass(frozen=True)
class Document:
    """A YAML file: its plain value and the node tree that remembers the lines."""

    path: Path
    value: Any
    root: yaml.Node | None

    def line_of(self, location: Sequence[str | int]) -> int:
        """Line (from 1) of the deepest node on the way `location` that exists in the file."""
        node, line = self.root, 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                entry = next((pair for pair in node.value if pair[0].value == str(part)), None)
                # Tags of a union stand in pydantic's locations but not in the file.
                if entry is None:
                    continue
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line


def read_yaml(path: Path) -> Document:
    """Read one YAML document. Raises ScenarioError when it is missing, malformed or repeats a key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ScenarioError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    _refuse_repeated_keys(path, root)
    return Document(path, value, root)


def parse_strict(model: type[Model], document: Document) -> Model:
    """Validate a document. Raises ScenarioError with one line per problem."""
    if not isinstance(document.value, dict):
        raise ScenarioError(
            f"{document.path}: expected a mapping with the keys {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise ScenarioError("\n".join(_describe(document, item) for item in error.errors())) from error


def _describe(document: Document, item: Any) -> str:
    location = tuple(item["loc"])
    context = item.get("ctx") or {}
    if item["type"] == "unknown_key":
        line = document.line_of((*location, context["key"]))
        message = context["text"]
    elif item["type"] == "union_tag_invalid":
        key = str(context.get("discriminator", "kind")).strip("'")
        line = document.line_of((*location, key))
        expected = [name.strip(" '") for name in context["expected_tags"].split(",")]
        near = difflib.get_close_matches(context["tag"], expected, n=1, cutoff=0.5)
        message = f"{key} {context['tag']!r} does not exist; "
        message += f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(expected)}"
    else:
        line = document.line_of(location)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] not in ("missing", "value_error"):
            message += f" (got {textwrap.shorten(repr(item['input']), 60)})"
    where = ".".join(str(part) for part in location) or "the file"
    return f"{document.path}:{line}: {where}: {message}"


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ScenarioError(f"{path}:{key.start_mark.line + 1}: key {key.value!r} is given twice")
            seen.add(key.value)
            _refuse_repeated_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(path, value)
