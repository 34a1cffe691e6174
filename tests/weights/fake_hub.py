"""A hub on loopback, for the real client to talk to.

The contract it keeps, as huggingface_hub 2.4 reads it (`hf_api.HfApi.model_info`, `file_download.hf_hub_download`,
`utils._http.hf_raise_for_status`): GET /api/models/REPO[/revision/REV] answers with `sha`, `gated` and `siblings` with
`size`, `blobId` and, for large files, `lfs.sha256`; HEAD and GET /REPO/resolve/COMMIT/FILE answer with ETag,
X-Repo-Commit and the bytes; refusals have a status and X-Error-Code. The real hub cannot be reached where these tests
run, so that nothing but this list holds the fake to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from http_server import Handler, listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeRepository:
    """A repository: files by name. `spoilt`: files whose bytes are not those that are published."""

    files: dict[str, bytes]
    gated: bool = False
    spoilt: set[str] = field(default_factory=set)
    revisions: tuple[str, ...] = ("main", "v1", COMMIT)

    @classmethod
    def of(cls, folder: Path, **options: bool) -> FakeRepository:
        """A repository with the files of a folder."""
        return cls({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}, **options)

    def described(self) -> list[dict[str, object]]:
        """`siblings`, as the hub tells them with `blobs=true`."""
        found: list[dict[str, object]] = []
        for name, data in self.files.items():
            one: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if is_large(name):
                one["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            found.append(one)
        return found


def is_large(name: str) -> bool:
    """Whether the hub keeps this file by Git LFS."""
    return name.endswith(".safetensors")


def git_sha1(data: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class FakeHub:
    """The hub: repositories by name, its address, and the requests it has had."""

    repositories: dict[str, FakeRepository]
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(repositories: dict[str, FakeRepository]) -> Iterator[FakeHub]:
    """A hub with these repositories, listening."""
    hub = FakeHub(repositories)

    class Answers(Handler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._described("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", body)
            elif len(parts) > 4 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
            else:
                self._refuse(404, "EntryNotFound")

        def _described(self, name: str, revision: str, body: bool) -> None:
            repository = hub.repositories.get(name)
            if repository is None:
                self._refuse(401, "RepoNotFound")
            elif revision not in repository.revisions:
                self._refuse(404, "RevisionNotFound")
            else:
                told = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                        "gated": "manual" if repository.gated else False, "siblings": repository.described()}
                self.send_whole(200, json.dumps(told).encode(), {"content-type": "application/json"}, body)

        def _file(self, name: str, revision: str, file: str, body: bool) -> None:
            repository = hub.repositories.get(name)
            if repository is None:
                self._refuse(401, "RepoNotFound")
            elif repository.gated:
                self._refuse(403, "GatedRepo")
            elif file not in repository.files:
                self._refuse(404, "EntryNotFound")
            else:
                data = repository.files[file]
                etag = hashlib.sha256(data).hexdigest() if is_large(file) else git_sha1(data)
                sent = bytes(byte ^ 1 for byte in data) if file in repository.spoilt else data
                self.send_whole(200, sent, {"etag": f'"{etag}"', "x-repo-commit": COMMIT}, body)

        def _refuse(self, status: int, code: str) -> None:
            self.send_whole(status, b"", {"x-error-code": code, "x-error-message": code})

    with listening(Answers) as hub.url:
        yield hub
