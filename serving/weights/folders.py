"""A folder of weights on this machine: whether it is whole, as far as that shows without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import WeightsDamaged, WeightsGated, WeightsMissing, nearest

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_LONGEST_HEADER = 100_000_000  # bytes; the limit that the safetensors library sets itself


def check(folder: Path, source: str) -> Mapping[str, Any] | None:
    """The folder's config.json. None where there is none because the format needs none (GGUF, Mistral's own).

    `source`: how messages call it. Checked are presence, that an index finds all its parts, and that no safetensors
    file is shorter than its header says.
    Raises: WeightsMissing, WeightsDamaged, WeightsGated.
    """
    try:
        return _check(folder, source)
    except PermissionError as error:
        raise WeightsGated(f"{source}: {error.filename or folder} may not be read by this user") from error


def _check(folder: Path, source: str) -> Mapping[str, Any] | None:
    if folder.is_file():
        if folder.suffix == ".gguf":
            return None
        raise WeightsMissing(f"{source} is a file; name the folder that holds config.json and the weights")
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        near = nearest(folder.name, beside)
        hint = f"did you mean {str(folder.parent / near)!r}?" if near else "check the path and the machine"
        raise WeightsMissing(f"{source}: there is no such folder; {hint}")
    found = [file for pattern in _WEIGHTS for file in folder.glob(pattern)]
    _all_parts(folder, source)
    if not found:
        raise WeightsMissing(f"{source}: there are no weights in {folder} ({', '.join(_WEIGHTS)})")
    for file in found:
        if file.suffix == ".safetensors":
            _whole(file, source)
    config = folder / "config.json"
    if not config.exists():
        if (folder / "params.json").exists() or any(file.suffix == ".gguf" for file in found):
            return None
        raise WeightsMissing(f"{source}: there is no config.json in {folder}")
    return read_config(config.read_bytes(), source)


def read_config(text: bytes, source: str) -> Mapping[str, Any]:
    """The content of a config.json. Raises: WeightsDamaged."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise WeightsDamaged(f"{source}: config.json is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsDamaged(f"{source}: config.json is not a JSON object")
    return found


def _all_parts(folder: Path, source: str) -> None:
    for index in folder.glob("*.index.json"):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsDamaged(f"{source}: {index.name} is no index of weights") from error
        gone = sorted(part for part in parts if not (folder / part).exists())
        if gone:
            raise WeightsDamaged(f"{source}: {index.name} names {len(parts)} files, of which {len(gone)} "
                                 f"{'is' if len(gone) == 1 else 'are'} not there, {gone[0]} first; fetch them again")


def _whole(file: Path, source: str) -> None:
    """A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, which says
    where the last tensor ends. https://github.com/huggingface/safetensors, "Format".
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if 0 < length <= min(size, _LONGEST_HEADER) else b""
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WeightsDamaged(f"{source}: {file.name} is no safetensors file, or its beginning is lost; fetch it again"
                             ) from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        raise WeightsDamaged(f"{source}: {file.name} has {size:,} bytes, its header says {wanted:,}: it was cut short "
                             "or overwritten; fetch it again")
