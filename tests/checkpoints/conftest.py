"""One build of every family for all these tests, and child processes that can be killed at a chosen point."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoint_families import TRAINED

from serving.checkpoints import make_all

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{family: checkpoint folder}, all in one root."""
    return make_all(TRAINED, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def tokenizers(built: dict[str, Path]) -> dict:
    """{family: tokenizer}, loaded from the files as an engine loads them."""
    from transformers import AutoTokenizer

    return {family: AutoTokenizer.from_pretrained(path) for family, path in built.items()}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(script, *arguments, **env)` runs Python on the script; survivors are killed afterwards."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def halted(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Like `start`, for a script that prints `halted` and then waits for a line; returns when it waits."""

    def halted(script: str, *arguments: object) -> subprocess.Popen[str]:
        child = start(script, *arguments)
        line = child.stdout.readline()
        assert line == "halted\n", f"child said {line!r}"
        return child

    return halted
