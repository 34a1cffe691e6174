"""Which architectures vLLM can run, read from its registry's text: to import vLLM takes seconds and a gigabyte.

tests/weights/test_weights_architectures.py holds this reading against vLLM's own answer.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from serving.errors import UnsupportedArchitecture, nearest

_ALL, _FORMER, _PLUGINS = "_VLLM_MODELS", "_PREVIOUSLY_SUPPORTED_MODELS", "_OOT_SUPPORTED_MODELS"


def require(config: Mapping[str, Any], source: str, claimed: str | None = None,
            overridden: Sequence[str] | None = None, remote_code: bool = False) -> None:
    """Nothing, if vLLM can run what this config.json describes.

    `claimed`: what the fleet file says it is. `overridden`: architectures that the fleet file puts in its place
    (`hf_overrides`). `remote_code`: the repository's own Python code may run and define the class.
    Raises: UnsupportedArchitecture.
    """
    own = config.get("architectures")
    if not isinstance(own, list) or not own or not all(isinstance(name, str) for name in own):
        raise UnsupportedArchitecture(f"{source}: its config.json names no architecture, so vLLM cannot tell what to "
                                      "build; is it an adapter, or a checkpoint of another kind?")
    if claimed is not None and claimed not in own:
        raise UnsupportedArchitecture(f"{source} is {' or '.join(own)}; the fleet file says {claimed}: correct "
                                      "architecture:, or the source")
    supported = known()
    if not supported or remote_code or any(name in supported for name in overridden or own):
        return
    name = (overridden or own)[0]
    if last := former(_FORMER).get(name):
        hint = f"vLLM {last} was the last that could"
    elif plugin := former(_PLUGINS).get(name):
        hint = f"a plugin can, {plugin}"
    elif _in_transformers(name):
        return
    elif near := nearest(name, supported):
        hint = f"the nearest that it knows is {near}"
    else:
        hint = "a newer vLLM may"
    raise UnsupportedArchitecture(f"{source} is a {name}, which the vLLM installed here cannot run; {hint}")


@cache
def known() -> frozenset[str]:
    """Names in vLLM's registry; empty where vLLM is not installed, as on machines that serve no model."""
    tables = _tables()
    return frozenset(_names(tables, _ALL)) if _ALL in tables else frozenset()


@cache
def former(table: str = _FORMER) -> Mapping[str, str]:
    """Architectures that vLLM has dropped, with the last version that ran them (or the plugin that does)."""
    found = _tables().get(table)
    return {} if found is None else dict(ast.literal_eval(found))


@cache
def _tables() -> Mapping[str, ast.Dict]:
    """The registry's dictionaries by name."""
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or not vllm.submodule_search_locations:
        return {}
    file = Path(vllm.submodule_search_locations[0]) / "model_executor" / "models" / "registry.py"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return {}
    return {
        target.id: node.value
        for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets if isinstance(target, ast.Name)
    }


def _names(tables: Mapping[str, ast.Dict], table: str) -> list[str]:
    """Keys of a dictionary and of those that it takes in by `**`."""
    found: list[str] = []
    for key, value in zip(tables[table].keys, tables[table].values, strict=True):
        if isinstance(key, ast.Constant):
            found.append(str(key.value))
        elif key is None and isinstance(value, ast.Name) and value.id in tables:
            found += _names(tables, value.id)
    return found


def _in_transformers(name: str) -> bool:
    """Whether vLLM could fall back on transformers' own class. Slow, and asked only before saying no."""
    if importlib.util.find_spec("transformers") is None:
        return False
    import transformers

    return hasattr(transformers, name)
