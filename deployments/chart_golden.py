"""What the chart renders for the production fleet, kept beside the tests, so that a change shows what it changes.

One file per kind of object. Left out are texts that are generated elsewhere and checked there: dashboards, price books,
alerts. `chart_docs.py` writes these files and says when they are out of date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "flotilla"
GOLDEN = ROOT / "tests" / "chart" / "golden"
_VALUES = CHART / "ci" / "h200-production-values.yaml"
_GATEWAY_API = "gateway.networking.k8s.io/v1"
_LEFT_OUT = "(left out)\n"


def golden() -> dict[Path, str]:
    """The files with their text. Needs Helm, and values that are up to date. Raises: FlotillaError, ConfigError."""
    from serving.cli.render import as_yaml
    from serving.kubernetes import helm

    text = helm.template(CHART, "flotilla", "models", [_VALUES], "{}", [_GATEWAY_API])
    kinds: dict[str, list[dict[str, Any]]] = {}
    for doc in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if doc:
            kinds.setdefault(doc["kind"], []).append(_short(doc))
    head = f"# Made by deployments/chart_docs.py from {_VALUES.relative_to(ROOT)}.\n"
    return {GOLDEN / f"{kind.lower()}.yaml": head + "---\n".join(
        as_yaml(doc) for doc in sorted(docs, key=lambda d: d["metadata"]["name"])) for kind, docs in kinds.items()}


def _short(doc: dict[str, Any]) -> dict[str, Any]:
    if doc["kind"] == "ConfigMap":
        doc["data"] = {name: text if name == "fleet.yaml" else _LEFT_OUT for name, text in doc["data"].items()}
    if doc["kind"] == "PrometheusRule":
        doc["spec"] = _LEFT_OUT
    return doc
