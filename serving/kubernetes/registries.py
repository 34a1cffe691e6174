"""Whether a registry has an image, asked from here as a node's runtime asks before it pulls: for the manifest alone.

Nothing is pulled. What a registry answers here may differ from what it tells a node, which has a network and perhaps
credentials of its own: that is for whoever reads the answer. Source: the OCI distribution specification, 1.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment

import urllib3
from urllib3.exceptions import HTTPError

from serving.kubernetes.imagenames import HUB, Image

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_ACCEPT = ", ".join((*_INDEXES, "application/vnd.oci.image.manifest.v1+json",
                     "application/vnd.docker.distribution.manifest.v2+json"))
_PATIENCE = urllib3.Timeout(connect=3.0, read=5.0)
_MOST_BYTES = 1 << 20
Login = tuple[str, str]


@dataclass(frozen=True)
class Told:
    """An answer. `said`: the digest where the image is there, or why the registry could not be asked. `login`: whether
    that was with a login. `architectures`: for which there is a variant, where the image has variants."""

    state: Literal["there", "missing", "refused", "unreachable"]
    said: str = ""
    login: bool = False
    architectures: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes


class Registries:
    """Asks; one that could not be reached is not tried again for the next image."""

    def __init__(self) -> None:
        self._away: dict[str, Told] = {}

    def ask(self, image: Image, logins: Iterable[Login]) -> Told:
        """Whether the image is there: without a login, and where that is refused with each until one is taken."""
        if image.api in self._away:
            return self._away[image.api]
        told = Told("refused")
        try:
            for login in (None, *logins):
                told = _asked(image, login)
                if told.state != "refused":
                    break
        except (HTTPError, ValueError) as error:
            told = Told("unreachable", f"{image.registry} cannot be asked from here ({_words(error)})")
        if told.state == "unreachable":
            self._away[image.api] = told
        return told


def _asked(image: Image, login: Login | None) -> Told:
    url, headers = image.api + image.manifest, {"Accept": _ACCEPT}
    answer = _sent("HEAD", url, headers)
    if answer.status == 401 and (right := _right(answer.headers.get("WWW-Authenticate", ""), image, login)):
        headers["Authorization"] = right
        answer = _sent("HEAD", url, headers)
    if answer.status == 200:
        variants: frozenset[str] = frozenset()
        if answer.headers.get("Content-Type", "") in _INDEXES and image.registry != HUB:  # which counts a GET as a pull
            variants = _architectures(_sent("GET", url, headers))
        return Told("there", answer.headers.get("Docker-Content-Digest", ""), login is not None, variants)
    if answer.status in (401, 403):
        return Told("refused", login=login is not None)
    if answer.status == 404:
        return Told("missing", login=login is not None)
    return Told("unreachable", f"{image.registry} answered {answer.status}")


def _right(challenge: str, image: Image, login: Login | None) -> str:
    """The Authorization that a challenge asks for; empty where there is none to be had."""
    scheme, _, rest = challenge.partition(" ")
    basic = urllib3.make_headers(basic_auth=":".join(login))["authorization"] if login else ""
    if scheme.lower() == "basic":
        return basic
    told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = told.get("realm", "")
    # a password goes nowhere in the clear but to this machine
    if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("https", urlsplit(image.api).scheme):
        return ""
    query = {"service": told["service"]} if "service" in told else {}
    query["scope"] = told.get("scope") or f"repository:{image.repository}:pull"
    answer = _sent("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}",
                   {"Authorization": basic} if basic else {})
    found = json.loads(answer.data) if answer.status == 200 else {}
    token = found.get("token") or found.get("access_token")
    return f"Bearer {token}" if token else ""


def _architectures(answer: _Answer) -> frozenset[str]:
    listed = json.loads(answer.data).get("manifests") or () if answer.status == 200 else ()
    found = {(m.get("platform") or {}).get("architecture", "") for m in listed}
    return frozenset(found - {"", "unknown"})  # of attestations beside the images


def _sent(method: str, url: str, headers: dict[str, str]) -> _Answer:
    """One answer, as much of it as a manifest may have. A redirection to another host goes without credentials."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass_environment(parts.netloc) else getproxies_environment().get(parts.scheme)
    with (urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()) as pool:
        answer = pool.request(method, url, headers=headers, timeout=_PATIENCE, preload_content=False,
                              retries=urllib3.Retry(connect=0, read=0, redirect=3, status=0, other=0))
        try:
            return _Answer(answer.status, answer.headers, answer.read(_MOST_BYTES))
        finally:
            answer.close()


def _words(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return type(cause).__name__ if isinstance(cause, HTTPError) else str(cause)
