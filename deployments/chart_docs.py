"""Makes what the chart's values.yaml and the shipped fleets decide: README.md, values.schema.json, ci/*-values.yaml,
and what the chart renders for the production fleet (tests/chart/golden).

    python deployments/chart_docs.py            write them
    python deployments/chart_docs.py --check    say which are out of date, and exit with 1 when any is

In values.yaml `# -- text` describes the key below, `# @schema {…}` says its type where the default value does not, and
`# @open` leaves the keys below it free. Every key has a description.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "flotilla"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
_SECRET = {"oneOf": [
    {"type": ["string", "null"]},
    {"type": "object", "properties": {"secretName": {"type": "string", "minLength": 1},
                                      "secretKey": {"type": "string", "minLength": 1}},
     "required": ["secretName", "secretKey"], "additionalProperties": False},
]}
_FREE = {"type": "object"}
_GROUP = {
    "type": "object", "additionalProperties": False,
    "required": ["profile", "kind", "minReplicas", "maxReplicas", "rayResources", "resources"],
    "properties": {
        "profile": {"type": "string"}, "kind": {"enum": ["cpu", "gpu"]},
        "minReplicas": {"type": "integer", "minimum": 0}, "maxReplicas": {"type": "integer", "minimum": 1},
        "rayResources": {"type": "object", "additionalProperties": {"type": "string"}}, "resources": _FREE,
        "nodeSelector": _FREE, "tolerations": {"type": "array", "items": _FREE}, "affinity": _FREE,
        "topologySpread": {"type": "boolean"},
        "runtimeClassName": {"type": "string"}, "priorityClassName": {"type": "string"}, "annotations": _FREE,
        "numOfHosts": {"type": "integer", "minimum": 1}, "idleTimeoutSeconds": {"type": "integer", "minimum": 1},
        "image": {"type": "string"}, "container": _FREE, "podSpec": _FREE, "group": _FREE,
    },
}


@dataclass(frozen=True)
class Key:
    """One key of values.yaml with what its comments say."""

    path: tuple[str, ...]
    value: Any
    text: str
    schema: dict[str, Any] | None
    is_open: bool


class DocsError(Exception):
    """values.yaml cannot be documented; the message says where."""


def keys(text: str) -> list[Key]:
    """Every key of values.yaml, in order. Raises: DocsError for one without a description."""
    lines = text.splitlines()
    found: list[Key] = []

    def walk(node: yaml.MappingNode, above: tuple[str, ...]) -> None:
        for name, value in node.value:
            path = (*above, name.value)
            described, schema, is_open = _comments(lines, name.start_mark.line)
            plain = yaml.safe_load(yaml.serialize(value))
            nested = isinstance(value, yaml.MappingNode) and value.value and not is_open and schema is None
            if not nested and not described:
                raise DocsError(f"values.yaml:{name.start_mark.line + 1}: {'.'.join(path)} has no `# --`")
            if described:
                found.append(Key(path, plain, described, schema, is_open))
            if nested:
                walk(value, path)

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    walk(root, ())
    return found


def _comments(lines: list[str], row: int) -> tuple[str, dict[str, Any] | None, bool]:
    above: list[str] = []
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        above.insert(0, lines[row].strip().removeprefix("#").strip())
    start = next((i for i, line in enumerate(above) if line.startswith("-- ")), None)
    if start is None:
        return "", None, False
    said = above[start:]
    schema = next((json.loads(line.removeprefix("@schema ")) for line in said if line.startswith("@schema ")), None)
    text = " ".join(line for line in said if not line.startswith("@")).removeprefix("-- ")
    return text, schema, "@open" in said


def schema(text: str) -> dict[str, Any]:
    """The JSON Schema of values.yaml."""
    root: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for key in keys(text):
        at = root
        for part in key.path[:-1]:
            at = at["properties"].setdefault(part, {"type": "object", "properties": {}, "additionalProperties": False})
        at["properties"][key.path[-1]] = _of(key)
    root["properties"]["global"] = {"type": "object", "description": "Helm's own, for subcharts."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart flotilla",
            "$defs": {"secret": _SECRET, "workerGroup": _GROUP}} | root


def _of(key: Key) -> dict[str, Any]:
    described = {"description": key.text}
    if key.schema is not None:
        return {"allOf": [key.schema]} | described if "$ref" in key.schema else key.schema | described
    if isinstance(key.value, dict):
        return {"type": "object"} | described
    return {"type": _TYPES[type(key.value)]} | described


def readme(text: str) -> str:
    """The chart's README."""
    rows = []
    for key in keys(text):
        default = json.dumps(key.value, ensure_ascii=False)
        rows.append(f"| `{'.'.join(key.path)}` | `{default}` | {key.text} |".replace("\n", " "))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    head = (CHART / "README.head.md").read_text()
    return (f"# flotilla {chart['version']}\n\n{chart['description']}\n\n{head}\n"
            "## Values\n\nMade from `values.yaml` by `deployments/chart_docs.py`.\n\n"
            "| value | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n")


def ci_values(overlay: Path) -> str:
    """Values of a fleet with the overlay's over them. The overlay's first line names the fleet."""
    sys.path.insert(0, str(ROOT))
    from serving.cli.render import as_yaml, fleet_values
    from serving.kubernetes.values import merged
    from serving.plan import Changes, fleet

    text = overlay.read_text()
    named = re.match(r"# fleet: (\S+)\n", text)
    if named is None:
        raise DocsError(f"{overlay}: its first line must be `# fleet: PATH`")
    file = ROOT / named[1]
    values = merged(fleet_values(file, fleet(file, Changes({}))), yaml.safe_load(text))
    return (f"# Made by deployments/chart_docs.py from {named[1]} and ci/overlays/{overlay.name}; change those.\n"
            + as_yaml(values))


def made() -> dict[Path, str]:
    """Every generated file with its text. Raises: DocsError."""
    text = (CHART / "values.yaml").read_text()
    found = {CHART / "README.md": readme(text),
             CHART / "values.schema.json": json.dumps(schema(text), indent=2, ensure_ascii=False) + "\n"}
    for overlay in sorted((CHART / "ci" / "overlays").glob("*.yaml")):
        found[CHART / "ci" / f"{overlay.stem}-values.yaml"] = ci_values(overlay)
    return found


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    try:
        files = made()
    except DocsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    check = "--check" in arguments
    stale = _compared(files, check)
    if not (stale and check):  # what is rendered follows from the files above
        from chart_golden import GOLDEN, golden

        rendered = golden()
        stale += _compared(rendered, check)
        for path in set(GOLDEN.glob("*.yaml")) - rendered.keys():
            stale.append(path)
            if not check:
                path.unlink()
    for path in stale:
        print(f"out of date: {path.relative_to(ROOT)}; run python deployments/chart_docs.py" if check
              else f"written: {path.relative_to(ROOT)}")
    return 1 if stale and check else 0


def _compared(files: dict[Path, str], check: bool) -> list[Path]:
    """The files whose text is another one; written anew unless only a check was asked for."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in () if check else stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path])
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
