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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY_ID = "AKIAFLOTILLATESTS"


@dataclass
class FakeS3:
    """Buckets by name, each with objects by key; its address, and the requests it has had."""

    buckets: dict[str, dict[str, bytes]]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def put(self, bucket: str, prefix: str, folder: Path) -> None:
        """Keep a folder's files below a prefix."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.buckets.setdefault(bucket, {})[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()


@contextmanager
def fake_s3(buckets: dict[str, dict[str, bytes]]) -> Iterator[FakeS3]:
    """An S3 with these buckets, listening."""
    s3 = FakeS3(buckets)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

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
            self._send(200, (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
                f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>").encode(), body,
                {"content-type": "application/xml"})

        def _object(self, data: bytes | None, body: bool) -> None:
            if data is None:
                self._refuse(404, "NoSuchKey", body)
                return
            headers = {"etag": f'"{hashlib.md5(data).hexdigest()}"', "last-modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            if asked is None:
                self._send(200, data, body, headers)
                return
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
            self._send(206, data[first:last + 1], body, headers)

        def _refuse(self, status: int, code: str, body: bool) -> None:
            self._send(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
                       .encode(), body, {"content-type": "application/xml"})

        def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    s3.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
