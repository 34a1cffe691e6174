"""The published document is what this vLLM and the gateway's tables give; a new vLLM or a new error shows up here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from serving.gateway import openapi


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Made by a process of its own, as the command does: names of schemas depend on what else has been imported."""
    path = tmp_path_factory.mktemp("apidoc") / "document.json"
    code = "import sys, pathlib; from serving import apidoc; pathlib.Path(sys.argv[1]).write_bytes(apidoc.generated())"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, timeout=120)
    return path.read_bytes()


def test_the_shipped_document_is_what_would_be_written_now(generated: bytes) -> None:
    shipped, made = json.loads(openapi.document()), json.loads(generated)
    assert shipped["paths"] == made["paths"], "run: python -m serving.apidoc"
    for kind, found in made["components"].items():
        assert shipped["components"][kind].keys() == found.keys(), f"{kind}; run: python -m serving.apidoc"
    assert openapi.document() == generated, "run: python -m serving.apidoc"


def test_it_describes_what_only_the_engine_knows(generated: bytes) -> None:
    schemas = json.loads(generated)["components"]["schemas"]
    assert {"top_k", "min_tokens", "structured_outputs"} <= schemas["ChatCompletionRequest"]["properties"].keys()
    assert "choices" in schemas["ChatCompletionResponse"]["properties"]
