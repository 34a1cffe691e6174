"""What is in an image, as CycloneDX 1.6 JSON on standard output: every Python distribution that this Python finds.

    python deployments/image/sbom.py --name flotilla --version 0.1.0 > sbom.json

Standard library only, and the same text for the same environment: no time, no random serial number. Debian's packages
are not in it; a scanner reads those from the image itself.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def bill(name: str, version: str) -> dict[str, Any]:
    """The bill of materials of this environment."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in distributions():  # what is found first is what Python imports
        component = _component(distribution)
        found.setdefault(component["bom-ref"].partition("@")[0], component)
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": [found[ref] for ref in sorted(found)],
    }


def _component(distribution: Distribution) -> dict[str, Any]:
    meta = distribution.metadata
    name = re.sub(r"[-_.]+", "-", meta["Name"]).lower()
    purl = f"pkg:pypi/{name}@{distribution.version}"
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": distribution.version,
                             "purl": purl}
    expression, licence = meta.get("License-Expression"), meta.get("License")
    if expression:
        found["licenses"] = [{"expression": expression}]
    elif licence and "\n" not in licence and len(licence) < 100:
        found["licenses"] = [{"license": {"name": licence}}]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    asked = parser.parse_args(arguments)
    json.dump(bill(asked.name, asked.version), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
