"""The published document is what this vLLM and the gateway's tables give; a new vLLM or a new error shows up here."""

from __future__ import annotations

import json

import pytest

from serving import apidoc
from serving.gateway import openapi


@pytest.fixture(scope="module")
def generated() -> bytes:
    return apidoc.generated()


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
