"""A container registry of the tests' own: manifests by name, for anyone or by token for those with a password."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from http_server import Handler, listening

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class FakeRegistry:
    """`has`: architectures by `repository:tag`, none for an image without variants. `users`: who may pull, by password;
    nobody is asked when there are none. `how`: the challenge, bearer or basic. `asked`: methods and paths."""

    has: dict[str, list[str]]
    users: dict[str, str] = field(default_factory=dict)
    how: str = "bearer"
    realm: str = ""  # elsewhere than here
    host: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, to: Handler) -> None:
        parts = urlsplit(to.path)
        self.asked.append(f"{to.command} {parts.path}")
        right = to.headers.get("Authorization", "")
        if parts.path == "/token":
            user = self._user(right)
            wanted = parse_qs(parts.query)
            assert wanted["service"] == ["tests"] and wanted["scope"][0].endswith(":pull")
            token = f"{user}@{wanted['scope'][0]}"
            return to.send_whole(200, json.dumps({"token": token}).encode()) if user else to.send_whole(401, b"")
        repository, _, reference = parts.path.removeprefix("/v2/").partition("/manifests/")
        if self.users and not self._may(right, repository):
            realm = self.realm or f"http://{self.host}/token"
            challenge = f'Bearer realm="{realm}",service="tests",scope="repository:{repository}:pull"' \
                if self.how == "bearer" else 'Basic realm="tests"'
            return to.send_whole(401, b"", {"WWW-Authenticate": challenge})
        if (found := self.has.get(f"{repository}:{reference}")) is None:
            return to.send_whole(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        doc: dict[str, Any] = {"manifests": [{"platform": {"architecture": a}} for a in found]} if found else {}
        headers = {"Content-Type": _INDEX if found else _MANIFEST, "Docker-Content-Digest": "sha256:" + "ab" * 32}
        return to.send_whole(200, json.dumps(doc).encode(), headers, body=to.command == "GET")

    def _may(self, right: str, repository: str) -> bool:
        if self.how == "basic":
            return bool(self._user(right))
        user, _, scope = right.removeprefix("Bearer ").partition("@")
        return user in self.users and scope == f"repository:{repository}:pull"

    def _user(self, right: str) -> str:
        user, _, password = base64.b64decode(right.removeprefix("Basic ")).decode().partition(":")
        return user if user and self.users.get(user) == password else ""


@contextmanager
def running(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """The registry while it listens; `host` is where."""
    class Asked(Handler):
        def do_GET(self) -> None:
            registry.answer(self)

        do_HEAD = do_GET

    with listening(Asked) as url:
        registry.host = url.removeprefix("http://")
        yield registry
