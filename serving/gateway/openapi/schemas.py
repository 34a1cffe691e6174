"""Makes the schemas of a document small: no titles, short descriptions, one schema for each shape, none unused.

Pure: JSON values in, JSON values out. May not happen in here: knowledge of endpoints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

REF = "#/components/schemas/"
_NAMES = ("properties", "schemas", "$defs", "patternProperties")  # below these, keys are names and not keywords
_LONGEST = 160  # characters of a description; OpenAI's classes carry whole manuals


def tidy(value: Any, names: bool = False) -> Any:
    """A schema without titles and examples, and with descriptions of one sentence."""
    if isinstance(value, list):
        return [tidy(v) for v in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        if not names and key in ("title", "examples", "example"):
            continue
        if not names and key == "description" and isinstance(inner, str):
            kept[key] = _sentence(inner)
        elif not names and key in ("const", "default", "enum"):
            kept[key] = inner
        else:
            kept[key] = tidy(inner, not names and key in _NAMES)
    return kept


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    if len(text) <= _LONGEST:
        return text
    first = re.match(r".*?[.:](?= )", text)
    found = first[0] if first else text
    return found if len(found) <= _LONGEST else found[:_LONGEST].rsplit(" ", 1)[0] + " …"


def merge_equal(document: dict[str, Any]) -> dict[str, Any]:
    """The document with one schema for each shape: of equal ones the shortest name stays."""
    while True:
        schemas: dict[str, Any] = document["components"]["schemas"]
        kept: dict[str, str] = {}
        other: dict[str, str] = {}
        for name in sorted(schemas, key=lambda n: (len(n), n)):
            shape = json.dumps(_undescribed(schemas[name]), sort_keys=True)
            if kept.setdefault(shape, name) != name:
                other[name] = kept[shape]
        if not other:
            return document
        document = _renamed(document, lambda name, other=other: other.get(name, name))
        document["components"]["schemas"] = {n: s for n, s in document["components"]["schemas"].items()
                                             if n not in other}


def _undescribed(schema: Any) -> Any:
    return {k: v for k, v in schema.items() if k != "description"} if isinstance(schema, dict) else schema


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return _distinct([_renamed(v, rename) for v in value])
    if isinstance(value, dict):
        return {k: _renamed(v, rename) for k, v in value.items()}
    if isinstance(value, str) and value.startswith(REF):
        return REF + rename(value.removeprefix(REF))
    return value


def _distinct(values: list[Any]) -> list[Any]:
    """Alternatives that have become the same reference stand once."""
    found: list[Any] = []
    for value in values:
        if not (isinstance(value, dict) and set(value) == {"$ref"} and value in found):
            found.append(value)
    return found


def prune(document: dict[str, Any]) -> dict[str, Any]:
    """The document without schemas that nothing refers to."""
    schemas = document["components"]["schemas"]
    rest = {**document, "components": {k: v for k, v in document["components"].items() if k != "schemas"}}
    todo, used = refs(rest), set[str]()
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            todo |= refs(schemas[name])
    kept = {name: schemas[name] for name in sorted(used)}
    return {**document, "components": {**document["components"], "schemas": kept}}


def refs(value: Any) -> set[str]:
    """Names of the schemas that a value refers to."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(refs, value))
    return {value.removeprefix(REF)} if isinstance(value, str) and value.startswith(REF) else set()
