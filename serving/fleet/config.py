"""The base of all configuration: strict, frozen and loud.

`Strict` refuses unknown keys and silent conversions. `read` turns YAML into a model and every failure into a
ConfigError that names the file, the line, the key and the nearest right name.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from serving.errors import ConfigError, nearest


class Strict(BaseModel):
    """A frozen value that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, str_strip_whitespace=True, allow_inf_nan=False)


M = TypeVar("M", bound=Strict)
WRONG_REFERENCE = "wrong_reference"
Loc = tuple[int | str, ...]


def wrong_reference(at: Loc, found: str, known: Iterable[str]) -> PydanticCustomError:
    """The error of a value at `at` that names something which is not there."""
    near = nearest(found, known := sorted(known))
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return PydanticCustomError(WRONG_REFERENCE, "{text}", {"text": f"{found!r} is not known; {hint}", "at": list(at)})


def wrong_value(at: Loc, text: str) -> PydanticCustomError:
    """The error of a value at `at` that does not fit the rest of the file."""
    return PydanticCustomError(WRONG_REFERENCE, "{text}", {"text": text, "at": list(at)})


def read(path: Path, model: type[M], context: dict[str, Any] | None = None) -> M:
    """Read a YAML file into `model`.

    Raises: ConfigError for a file that cannot be read, is not YAML, has a key twice or breaks the model.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path), model, context)


def parse(text: str, name: str, model: type[M], context: dict[str, Any] | None = None) -> M:
    """Like `read`, from text. `name` stands for the file in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigError(f"{name}: the file is empty; the README shows a small one that works")
        _refuse_twice(root, name, set())
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except (ValueError, RecursionError) as error:  # a scalar such as 2026-13-45, or nesting without end
        raise ConfigError(f"{name}: not valid YAML: {error}") from error
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        lines = [_explain(e, name, root, model) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def _refuse_twice(node: yaml.Node, name: str, walked: set[int]) -> None:
    if id(node) in walked:  # an anchor makes one node stand in many places, or within itself
        return
    walked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in seen:
                    first = seen[key.value]
                    raise ConfigError(f"{name}:{line}: {key.value!r} stands here and in line {first}; keep one")
                seen[key.value] = line
            _refuse_twice(value, name, walked)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, name, walked)


def _explain(error: Any, name: str, root: yaml.Node, model: type[BaseModel]) -> str:
    loc: Loc = tuple(part for part in error.get("ctx", {}).get("at", error["loc"]) if part != "[key]")
    line, shown = _line(root, loc), ".".join(str(p) for p in loc) or "the file"
    where = f"{name}:{line}: {shown}"
    kind = error["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        near = nearest(str(loc[-1]), known)
        hint = f"did you mean {near!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: unknown key {loc[-1]!r}; {hint}"
    if kind == "missing":
        return f"{where}: is missing"
    message = error["msg"].removeprefix("Value error, ")
    found = error.get("input")
    if isinstance(found, str | int | float | bool) and kind not in ("value_error", WRONG_REFERENCE):
        message += f"; found {found!r}"
    return f"{where}: {message}"


def _line(node: yaml.Node, loc: Loc) -> int:
    """The line of the deepest part of `loc` that the file has."""
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields_at(annotation: Any, loc: Loc) -> set[str]:
    """The keys that a model knows at `loc`, walking through models, dicts, sequences and optional values."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return set(annotation.model_fields)
        found = annotation.model_fields.get(str(loc[0]))
        return _fields_at(found.annotation, loc[1:]) if found else set()
    if origin is dict or origin in (list, tuple):
        return _fields_at(args[1] if origin is dict else args[0], loc[1:]) if loc else set()
    return set().union(*(_fields_at(a, loc) for a in args)) if args else set()
