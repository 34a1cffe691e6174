"""vLLM's own arguments: the list that `flotilla check` knows without importing vLLM, and vLLM's parser itself.

`python -m serving.engines.arguments` writes the list anew after vLLM has changed; a test holds the shipped one against
the installed vLLM. Names and types come from the dataclasses that ray.serve.llm sorts `engine_kwargs` into
(AsyncEngineArgs, FrontendArgs), inner keys from vLLM's configuration classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import io
import json
import types
import typing
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from serving.fleet.models.engineargs import FILE

_KINDS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}


def build() -> dict[str, Any]:
    """{"vllm": version, "arguments": {name: {"of": "engine" | "server", "types": […], "choices"?, "keys"?}}}."""
    from vllm.config import KVTransferConfig, SpeculativeConfig
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    found: dict[str, dict[str, Any]] = {}
    for of, owner in (("server", FrontendArgs), ("engine", AsyncEngineArgs)):
        hints = _hints(owner)
        for field in dataclasses.fields(owner):
            known, choices, keys = _describe(hints[field.name])
            found.setdefault(field.name, {"of": of, "types": sorted(known)} | (
                {"choices": sorted(choices)} if choices and "str" not in known else {}) | (
                {"keys": sorted(keys)} if keys else {}))
    found["speculative_config"]["keys"] = sorted(f.name for f in dataclasses.fields(SpeculativeConfig) if f.init)
    found["kv_transfer_config"]["keys"] = sorted(f.name for f in dataclasses.fields(KVTransferConfig) if f.init)
    found["quantization"] |= {"types": ["null", "word"], "choices": sorted(QUANTIZATION_METHODS)}
    return {"vllm": version("vllm").partition("+")[0], "arguments": dict(sorted(found.items())),
            "tool_call_parsers": sorted(ToolParserManager.list_registered()),
            "reasoning_parsers": sorted(ReasoningParserManager.list_registered()),
            "kv_connectors": sorted(KVConnectorFactory._registry)}


def parse(arguments: Mapping[str, Any]) -> str | None:
    """What vLLM's own command-line parser says against engine arguments; None when it takes them."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m", *_argv(arguments)])
    except SystemExit:
        return said.getvalue().strip().rpartition("error: ")[2] or "refused without a word"
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _argv(arguments: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in arguments.items():
        option = "--" + name.replace("_", "-")
        if value is True or value is False:
            words.append(option if value else "--no-" + name.replace("_", "-"))
        elif isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
            words += [option, *map(str, value)]
        elif value is not None:
            words += [option, json.dumps(value) if isinstance(value, Mapping | list) else str(value)]
    return words


def _hints(owner: type) -> dict[str, Any]:
    """A dataclass's types; names that its module imports for type checkers only count as anything."""
    names: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(owner, localns=names)
        except NameError as error:
            names[str(error.name)] = Any


def _describe(hint: Any) -> tuple[set[str], set[str], set[str]]:
    """(kinds of values, words it may be, inner keys) of a type."""
    origin = typing.get_origin(hint)
    if hint in _KINDS:
        return {_KINDS[hint]}, set(), set()
    if origin in (typing.Union, types.UnionType):
        parts = [_describe(part) for part in typing.get_args(hint)]
        return tuple(set().union(*(part[i] for part in parts)) for i in range(3))  # type: ignore[return-value]
    if origin is typing.Annotated:
        return _describe(typing.get_args(hint)[0])
    if origin is typing.Literal:
        words = {value for value in typing.get_args(hint) if isinstance(value, str)}
        other = {_KINDS[type(value)] for value in typing.get_args(hint) if not isinstance(value, str)}
        return {"word"} | other if words else other, words, set()
    if origin in (list, tuple, set) or hint in (list, tuple, set):
        return {"list"}, set(), set()
    if origin is dict or hint is dict:
        return {"dict"}, set(), set()
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"word"}, {word for m in hint for word in (m.name, m.value) if isinstance(word, str)}, set()
    if dataclasses.is_dataclass(hint):
        return {"dict"}, set(), {f.name for f in dataclasses.fields(hint) if f.init}
    return {"any"}, set(), set()


def write() -> None:
    """Write the list that is shipped."""
    FILE.write_text(json.dumps(build(), indent=1) + "\n")
    print(f"{FILE}: {FILE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    write()
