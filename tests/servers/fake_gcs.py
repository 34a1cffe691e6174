"""A Google Cloud Storage on loopback, for Arrow's and Ray's clients to talk to.

The contract it keeps, as google-cloud-cpp in Arrow's GcsFileSystem uses it: POST /token gives an access token to who
has the refresh token; GET /storage/v1/b/BUCKET/o with `prefix` lists objects, GET /storage/v1/b/BUCKET/o/KEY describes
one, with `alt=media` answers with its bytes, of which `Range` may ask for a part. The real one cannot be reached where
these tests run, so that nothing but this list holds the fake to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from fake_buckets import FakeBuckets
from http_server import Handler, listening

REFRESH = "refresh-token-of-the-tests"
_PATH = re.compile(r"/storage/v1/b/([^/]+)/o(?:/(.+))?")


class FakeGcs(FakeBuckets):
    """A Google Cloud Storage."""

    def credentials(self, refresh: str = REFRESH) -> str:
        """A user's credentials, as the cloud's tools keep them in a file."""
        return json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": refresh,
                           "token_uri": f"{self.url}/token"})

    def let_in(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Set what lets the cloud's clients in, with the credentials in a file of this folder."""
        file = folder / "user.json"
        file.write_text(self.credentials())
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", self.url)


@contextmanager
def fake_gcs(buckets: dict[str, dict[str, bytes]]) -> Iterator[FakeGcs]:
    """A store with these buckets, listening."""
    gcs = FakeGcs(buckets)

    class Answers(Handler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            if REFRESH in body:
                self._json(200, {"access_token": "good", "expires_in": 3600, "token_type": "Bearer", "scope": "s",
                                 "id_token": "i"})
            else:
                self._json(400, {"error": "invalid_grant"})

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            gcs.asked.append(f"{self.command} {unquote(asked.path)}")
            found, query = _PATH.fullmatch(asked.path), parse_qs(asked.query)
            if self.headers.get("authorization") != "Bearer good":
                self._refuse(403, "forbidden")
            elif found is None or found[1] not in gcs.buckets:
                self._refuse(404, "The specified bucket does not exist.")
            else:
                self._found(found[1], unquote(found[2] or ""), query)

        def _found(self, bucket: str, key: str, query: dict[str, list[str]]) -> None:
            objects = gcs.buckets[bucket]
            if not key:
                prefix = query.get("prefix", [""])[0]
                found = [_described(bucket, *one) for one in sorted(objects.items()) if one[0].startswith(prefix)]
                self._json(200, {"kind": "storage#objects", "items": found})
            elif key not in objects:
                self._refuse(404, f"No such object: {bucket}/{key}")
            elif query.get("alt") == ["media"]:
                data, part = objects[key], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
                first, last = (int(part[1]), int(part[2] or len(data) - 1)) if part else (0, len(data) - 1)
                self.send_whole(206 if part else 200, data[first:last + 1], {
                    "x-goog-generation": "1", "content-range": f"bytes {first}-{last}/{len(data)}"})
            else:
                self._json(200, _described(bucket, key, objects[key]))

        def _refuse(self, status: int, message: str) -> None:
            self._json(status, {"error": {"code": status, "message": message}})

        def _json(self, status: int, value: object) -> None:
            self.send_whole(status, json.dumps(value).encode(), {"content-type": "application/json"})

    with listening(Answers) as gcs.url:
        yield gcs


def _described(bucket: str, key: str, data: bytes) -> dict[str, str]:
    at = "2026-11-01T00:00:00.000Z"
    return {"kind": "storage#object", "id": f"{bucket}/{key}/1", "name": key, "bucket": bucket, "generation": "1",
            "metageneration": "1", "size": str(len(data)), "timeCreated": at, "updated": at, "storageClass": "STANDARD"}
