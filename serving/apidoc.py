"""Writes the published OpenAPI document anew, from vLLM's and the gateway's own tables.

    python -m serving.apidoc            writes serving/gateway/openapi/document.json
    python -m serving.apidoc --check    exits with 1 when that file is not what would be written
"""

from __future__ import annotations

import sys

from serving.gateway.openapi import FILE
from serving.gateway.openapi.publish import publish, written


def generated() -> bytes:
    """The document as it should be. Imports vLLM, which takes seconds."""
    from serving.engines.apidoc import engine_document

    return written(publish(engine_document()))


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = generated()
    if not arguments:
        FILE.write_bytes(found)
        print(f"{FILE}: {len(found) / 1024:.0f} KiB")
    elif FILE.read_bytes() != found:
        print(f"{FILE} is not what vLLM and the gateway's tables give; run: python -m serving.apidoc", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
