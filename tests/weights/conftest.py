"""A whole small checkpoint to publish, move and damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, FakeRepository, fake_hub

from serving.weights import Hub

REPOSITORY = "org/tiny"


def safetensors(size: int = 64) -> bytes:
    """A safetensors file with one tensor of this many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(range(size))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint of one file."""
    made = tmp_path / "tiny"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(safetensors())
    return made


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that has that folder as org/tiny, and the same as org/gated, for those who have accepted its licence."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with fake_hub({REPOSITORY: FakeRepository.of(folder), "org/gated": FakeRepository.of(folder, gated=True)}) as made:
        yield made


@pytest.fixture
def at_hub(hub: FakeHub, tmp_path: Path) -> Callable[..., Hub]:
    """`at_hub(**options)`: that hub with a cache of its own."""

    def made(**options: object) -> Hub:
        return Hub(**{"cache": tmp_path / "cache", "endpoint": hub.url, **options})  # type: ignore[arg-type]

    return made


@pytest.fixture
def spoil(folder: Path) -> Callable[[str], None]:
    """Take a file away."""

    def gone(name: str) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return gone
