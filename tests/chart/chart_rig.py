"""The chart under the real Helm, and what its objects are held against: Kubernetes' schemas, CRDs, KubeRay's rules.

May not happen in here: saying what the chart should render.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs  # an object takes it milliseconds, and Python's own a second
import kubernetes_validate
import yaml

from serving.kubernetes import helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "flotilla"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
CRDS = Path(__file__).parent / "crds"
GATEWAY_API = "gateway.networking.k8s.io/v1"
VERSIONS = tuple(f"1.{minor}" for minor in range(30, int(kubernetes_validate.latest_version().split(".")[1]) + 1))
SECRETS = {"secrets": {"keyPepper": "p", "replicaSecret": "s", "databaseUrl": "postgresql://u:p@db/f"}}
Doc = dict[str, Any]
_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def rendered(files: Sequence[Path] = (), values: dict[str, Any] | None = None, api: Sequence[str] = (GATEWAY_API,),
             release: str = "flotilla") -> list[Doc]:
    """The objects of the chart, each time as new ones; renderings are kept, because each takes half a second."""
    return pickle.loads(_rendered(tuple(files), yaml.safe_dump(values or {}), tuple(api), release))


def rendered_text(values: str, api: Sequence[str] = (GATEWAY_API,)) -> list[Doc]:
    """The objects of the chart for values that stand in one text."""
    return _parsed(helm.run(["template", "flotilla", str(CHART), "--namespace", "models", *_options((), api),
                             "--values", "-"], values))


@functools.cache
def _rendered(files: tuple[Path, ...], values: str, api: tuple[str, ...], release: str) -> bytes:
    # values of the test go over the files', which `helm.template` does the other way round
    options = [*_options(files, api), "--values", "-"]
    text = helm.run(["template", release, str(CHART), "--namespace", "models", *options], values)
    return pickle.dumps(_parsed(text))


def _options(files: Sequence[Path], api: Sequence[str]) -> Iterator[str]:
    for file in files:
        yield from ("--values", str(file))
    for version in api:
        yield from ("--api-versions", version)


def _parsed(text: str) -> list[Doc]:
    return [doc for doc in yaml.load_all(text, yaml.CSafeLoader) if doc]


def one(docs: list[Doc], kind: str, name: str = "") -> Doc:
    """The object of a kind, and of a name where there are several."""
    (found,) = [d for d in docs if d["kind"] == kind and name in ("", d["metadata"]["name"])]
    return found


def groups(docs: list[Doc]) -> dict[str, Doc]:
    """The groups of the RayService by name; the head's is `head`."""
    config = one(docs, "RayService")["spec"]["rayClusterConfig"]
    return {"head": config["headGroupSpec"]} | {g["groupName"]: g for g in config["workerGroupSpecs"]}


def pod_specs(docs: list[Doc]) -> Iterator[tuple[str, Doc]]:
    """Every pod that the objects lead to: where it stands, and its template."""
    for doc in docs:
        where = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] == "Pod":
            yield where, doc
        elif doc["kind"] == "RayService":
            for name, group in groups(docs).items():
                yield f"{where}/{name}", group["template"]
        elif doc["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield where, doc["spec"]["template"]


def containers(template: Doc) -> Iterator[Doc]:
    """A pod's containers, those that begin before it among them."""
    yield from template["spec"].get("initContainers", ())
    yield from template["spec"]["containers"]


def valid(doc: Doc, versions: Sequence[str]) -> None:
    """By the strict schemas that `kubernetes-validate` ships, or by the definition (CRD) that is here.

    Raises: jsonschema_rs.ValidationError that names the field.
    """
    if (crd := _crds().get(doc["kind"])) is not None:
        assert crd["group"] == doc["apiVersion"].split("/")[0]
        crd["check"].validate(doc)
        return
    if doc["kind"] in ("ExternalSecret", "HTTPRoute"):  # their definitions are not here
        return
    text = json.dumps(doc, sort_keys=True)
    for version in versions:
        _held_against(text, doc["kind"], doc["apiVersion"], version)


@functools.cache
def _held_against(text: str, kind: str, api_version: str, version: str) -> None:
    _schema(kind, api_version, version).validate(json.loads(text))


@functools.cache
def _schema(kind: str, api_version: str, version: str) -> jsonschema_rs.Draft202012Validator:
    group, _, of = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], of)))
    folder = _SCHEMAS / f"v{version}.0-local-strict"
    return jsonschema_rs.Draft202012Validator(json.loads((folder / f"{name}.json").read_text()),
                                              registry=_definitions(folder))


@functools.cache
def _definitions(folder: Path) -> jsonschema_rs.Registry:
    found = json.loads((folder / "_definitions.json").read_text())
    return jsonschema_rs.Registry([(found["$id"], found)])


def as_pod(template: Doc) -> Doc:
    """A pod of a template, as the API server would get it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | template.get("metadata", {}),
            "spec": template["spec"]}


@functools.cache
def _crds() -> dict[str, Doc]:
    found = {}
    for path in CRDS.glob("*.yaml"):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        version = next(v for v in crd["versions"] if v["storage"])
        schema = _strict(version["schema"]["openAPIV3Schema"])
        found[crd["names"]["kind"]] = {"group": crd["group"], "check": jsonschema_rs.Draft202012Validator(schema)}
    return found


def _strict(schema: Any) -> Any:
    """A CRD's schema as the API server means it: unknown fields are wrong, and some integers may be texts."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    found = {k: _strict(v) for k, v in schema.items() if k not in ("properties", "format")}
    if "properties" in schema:
        found["properties"] = {k: _strict(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            found["additionalProperties"] = False
        if schema["properties"].keys() >= {"apiVersion", "kind", "metadata"}:
            found["properties"]["metadata"] = {"type": "object"}
    return found


def operator_refuses(doc: Doc) -> list[str]:
    """What KubeRay's own validation says against a RayService, from reading its rules (utils/validation.go, 1.7)."""
    spec, wrong = doc["spec"], []
    config = spec["rayClusterConfig"]
    autoscaling = config.get("enableInTreeAutoscaling", False)
    head = config["headGroupSpec"]
    if len(doc["metadata"]["name"]) > 41:
        wrong.append("the name is longer than 41 characters")
    for name, group in [("head", head), *((g["groupName"], g) for g in config["workerGroupSpecs"])]:
        params = group["rayStartParams"]
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & params.keys():
            wrong.append(f"{name}: resources stand in rayStartParams and in resources")
        if "labels" in params:
            wrong.append(f"{name}: labels stand in rayStartParams")
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            wrong.append(f"{name}: minReplicas is above maxReplicas")
        if autoscaling and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            wrong.append(f"{name}: restartPolicy must be Never with autoscaler v2")
    names = [e["name"] for e in head["template"]["spec"]["containers"][0]["env"]]
    for forbidden in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"):
        if forbidden in names:
            wrong.append(f"the head's environment has {forbidden}")
    if spec["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade" and not autoscaling:
        wrong.append("an incremental upgrade needs the autoscaler")
    return wrong


def digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
