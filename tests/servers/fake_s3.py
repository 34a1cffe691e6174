"""An S3 on loopback, for Arrow's and Ray's clients to talk to.

The contract it keeps, as Arrow's S3FileSystem uses it with an endpoint of its own (path style): GET /BUCKET?list-type=2
with `prefix` answers ListObjectsV2's XML; HEAD and GET /BUCKET/KEY answer with the bytes, GET with a part of them where
`Range` asks; refusals are an XML error with S3's code. Who asks is read off the Authorization header (Signature 4);
signatures are not checked. No real S3 can be reached where these tests run, so that nothing but this list holds the
fake to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from fake_buckets import FakeBuckets
from http_server import Handler, listening

KEY_ID = "AKIAFLOTILLATESTS"


class FakeS3(FakeBuckets):
    """An S3."""

    def environment(self, nowhere: Path) -> dict[str, str]:
        """What lets the cloud's clients in. `nowhere`: a path where no configuration of theirs is."""
        return {"AWS_ENDPOINT_URL_S3": self.url, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_DEFAULT_REGION": "eu-1",
                "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": str(nowhere), "AWS_SHARED_CREDENTIALS_FILE": str(nowhere)}

    def let_in(self, patch: pytest.MonkeyPatch, nowhere: Path) -> None:
        """Set that, and nothing else of the cloud's."""
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_S3_ADDRESSING_STYLE"):
            patch.delenv(name, raising=False)
        for name, value in self.environment(nowhere).items():
            patch.setenv(name, value)


@contextmanager
def fake_s3(buckets: dict[str, dict[str, bytes]]) -> Iterator[FakeS3]:
    """An S3 with these buckets, listening."""
    s3 = FakeS3(buckets)

    class Answers(Handler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            asked = urlsplit(self.path)
            bucket, _, key = unquote(asked.path).strip("/").partition("/")
            s3.asked.append(f"{self.command} {unquote(asked.path)}")
            if f"Credential={KEY_ID}/" not in self.headers.get("authorization", ""):
                self._refuse(403, "AccessDenied", body)
            elif bucket not in s3.buckets:
                self._refuse(404, "NoSuchBucket", body)
            elif key:
                self._object(s3.buckets[bucket].get(key), body)
            else:
                self._listed(bucket, s3.buckets[bucket], parse_qs(asked.query).get("prefix", [""])[0], body)

        def _listed(self, bucket: str, objects: dict[str, bytes], prefix: str, body: bool) -> None:
            found = {key: data for key, data in sorted(objects.items()) if key.startswith(prefix)}
            contents = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag><Size>{len(data)}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>" for key, data in found.items())
            self.send_whole(200, (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
                f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>").encode(),
                {"content-type": "application/xml"}, body)

        def _object(self, data: bytes | None, body: bool) -> None:
            if data is None:
                self._refuse(404, "NoSuchKey", body)
                return
            headers = {"etag": f'"{hashlib.md5(data).hexdigest()}"', "last-modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            if asked is None:
                self.send_whole(200, data, headers, body)
                return
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
            self.send_whole(206, data[first:last + 1], headers, body)

        def _refuse(self, status: int, code: str, body: bool) -> None:
            self.send_whole(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
                       .encode(), {"content-type": "application/xml"}, body)

    with listening(Answers) as s3.url:
        yield s3
