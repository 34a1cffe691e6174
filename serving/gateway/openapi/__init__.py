"""The published OpenAPI document: what `GET /openapi.json` answers.

`document.json` is generated from vLLM's document and the gateway's own tables (`python -m serving.apidoc`), so that a
gateway need not import vLLM to describe it. May not happen in here: rules about requests.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("document.json")


@cache
def document() -> bytes:
    """The document, JSON. Read once."""
    return FILE.read_bytes()
