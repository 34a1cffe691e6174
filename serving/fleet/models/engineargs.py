"""Whether engine arguments are vLLM's: names, kinds of values, words, inner keys; from a generated list, in no time.

Importing vLLM takes seconds, so its arguments stand in engine_args.json beside this module; who writes it and keeps it
true is `serving.engines.arguments`. What only a running engine can tell (whether an argument fits a model, a device or
another argument) is not checked here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from serving.errors import nearest

FILE = Path(__file__).with_name("engine_args.json")
Trouble = tuple[tuple[str, ...], str]
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "list": "a list",
          "dict": "a mapping", "null": "nothing"}


@cache
def table() -> Mapping[str, Any]:
    """The generated list; see `serving.engines.arguments.build`."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def troubles(args: Mapping[str, Any]) -> Iterator[Trouble]:
    """(path of keys, what is wrong and what would be right) of each argument that vLLM would not take."""
    known = table()["arguments"]
    for name, value in args.items():
        if name not in known:
            yield (name,), _unknown(f"vLLM {table()['vllm']} has no argument {name!r}", name.replace("-", "_"), known)
            continue
        yield from _value(name, value, known[name])


def parser_trouble(kind: str, name: str) -> str | None:
    """What is wrong with the name of a parser; `kind`: tool_call_parser or reasoning_parser."""
    known = table()[f"{kind}s"]
    return None if name in known else _unknown(f"vLLM {table()['vllm']} has no {kind} {name!r}", name, known)


def _value(name: str, value: Any, of: Mapping[str, Any]) -> Iterator[Trouble]:
    kinds = set(of["types"])
    if "any" in kinds:
        return
    kind = _kind(value)
    words = of.get("choices", ())
    if kind == "str" and "word" in kinds and "str" not in kinds:
        if value not in words:
            yield (name,), _unknown(f"{value!r} is not one of {name}'s values", value, words)
    elif kind not in kinds and not (kind == "int" and "float" in kinds):
        right = " or ".join(_WORDS[k] for k in of["types"] if k in _WORDS and k != "null")
        yield (name,), f"must be {' or '.join(filter(None, [right, ', '.join(words)]))}; found {value!r}"
    elif kind == "dict":
        for inner in value:
            if of.get("keys") and str(inner) not in of["keys"]:
                yield (name, str(inner)), _unknown(f"{name} has no key {inner!r}", str(inner), of["keys"])
        connector = value.get("kv_connector") if name == "kv_transfer_config" else None
        if isinstance(connector, str) and connector not in table()["kv_connectors"] and (
                "kv_connector_module_path" not in value):
            yield (name, "kv_connector"), _unknown(f"vLLM has no kv_connector {connector!r}", connector,
                                                   table()["kv_connectors"])


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Mapping):
        return "dict"
    if isinstance(value, list | tuple):
        return "list"
    return {int: "int", float: "float", str: "str"}.get(type(value), "null")


def _unknown(says: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = nearest(name, known)
    if near:
        return f"{says}; did you mean {near!r}?"
    return f"{says}; there are {len(known)}, `vllm serve --help=all` lists them" if len(known) > 40 else (
        f"{says}; there are {', '.join(known)}")
