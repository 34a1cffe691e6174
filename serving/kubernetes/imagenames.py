"""What an image's name says, and which of a pull secret's entries is for it: as Kubernetes' nodes read both. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from serving.kubernetes import rendered

Doc = dict[str, Any]
HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_HUB_NAMES = {"index.docker.io", HUB, _HUB_API}


@dataclass(frozen=True)
class Image:
    """An image by its parts. `reference`: its digest where it has one, else its tag."""

    registry: str
    repository: str
    reference: str

    @property
    def api(self) -> str:
        """Address of its registry. A registry of this machine may go without TLS, as everywhere with containers."""
        host = self.registry.partition(":")[0]
        scheme = "http" if host in ("localhost", "127.0.0.1") else "https"
        return f"{scheme}://{_HUB_API if self.registry == HUB else self.registry}"

    @property
    def manifest(self) -> str:
        """Path of its manifest there."""
        return f"/v2/{self.repository}/manifests/{self.reference}"


def parsed(name: str) -> Image:
    """The parts of an image's name, short names of Docker Hub filled in."""
    rest, _, digest = name.partition("@")
    first, slash, below = rest.partition("/")
    hosted = slash and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, below) if hosted else (HUB, rest)
    repository, _, tag = path.partition(":")
    if registry in _HUB_NAMES:
        registry, repository = HUB, repository if "/" in repository else f"library/{repository}"
    return Image(registry, repository, digest or tag or "latest")


def used(docs: list[Doc]) -> dict[str, list[Doc]]:
    """Every image of a release with the templates of the pods that run it."""
    found: dict[str, list[Doc]] = {}
    for _, template, _ in rendered.pods(docs):
        spec = template["spec"]
        for name in dict.fromkeys(c["image"] for c in [*spec.get("initContainers", ()), *spec["containers"]]):
            found.setdefault(name, []).append(template)
    return found


def pull_secrets(templates: Iterable[Doc]) -> list[str]:
    """Names of the secrets that pods pull with."""
    return list(dict.fromkeys(ref["name"] for t in templates for ref in t["spec"].get("imagePullSecrets") or ()))


def logins(secret: Doc, image: Image) -> Iterator[tuple[str, str]]:
    """User and password of a secret's entries that are for an image, the most special first. A secret that is no pull
    secret, or is damaged, has none."""
    fitting = [(len(path), entry) for where, entry in _entries(secret).items()
               if (path := _fits(where, image)) is not None]
    for _, entry in sorted(fitting, key=lambda f: -f[0]):
        if entry.get("username"):
            yield entry["username"], entry.get("password", "")
        elif told := _decoded(entry.get("auth", "")):
            user, _, password = told.partition(":")
            yield user, password


def _entries(secret: Doc) -> Mapping[str, Any]:
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            found = json.loads(_decoded(data[".dockerconfigjson"])).get("auths")
        else:
            found = json.loads(_decoded(data.get(".dockercfg", "")) or "{}")
    except (ValueError, AttributeError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _fits(where: str, image: Image) -> str | None:
    """The path that an entry names below its registry, when the entry is for the image; hosts may have `*` parts."""
    host, _, path = where.removeprefix("https://").removeprefix("http://").rstrip("/").partition("/")
    if host in _HUB_NAMES:
        host = HUB
    path = path.removeprefix("v1").removeprefix("v2").strip("/")
    parts, wanted = host.split("."), image.registry.split(".")
    if len(parts) != len(wanted) or not all(map(fnmatchcase, wanted, parts)):
        return None
    return path if not path or f"{image.repository}/".startswith(f"{path}/") else None


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
