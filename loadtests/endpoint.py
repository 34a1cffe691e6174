"""Where the load goes: the base URL taken apart once, the key, and a look whether anything answers there.

Shared by the command line (no gevent) and the client (gevent); it must not import either.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.errors import ArgumentError, UnreachableError

KEY_VARIABLE = "FLOTILLA_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint. `prefix` is the part of the path before /v1."""

    host: str
    port: int
    tls: bool
    prefix: str = ""
    api_key: str | None = None

    @staticmethod
    def parse(base_url: str, api_key: str | None) -> Endpoint:
        """From a base URL with or without a trailing /v1. Raises ArgumentError."""
        try:
            url = urlsplit(base_url)
            port = url.port
        except ValueError as error:
            raise ArgumentError(f"--base-url {base_url}: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ArgumentError(f"--base-url {base_url}: expected http://HOST:PORT or https://HOST")
        tls = url.scheme == "https"
        prefix = url.path.rstrip("/").removesuffix("/v1").rstrip("/")
        return Endpoint(url.hostname, port or (443 if tls else 80), tls, prefix, api_key or None)

    def path(self, path: str) -> str:
        return self.prefix + path

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def served_models(self, timeout_s: float = 10.0) -> Sequence[str] | None:
        """Names from GET /v1/models, or None if the endpoint does not list them.

        Raises UnreachableError if nothing answers, ArgumentError if the key is refused.
        """
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=timeout_s)
        try:
            connection.request("GET", self.path("/v1/models"), headers=self.headers())
            response = connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"nothing answers at {self.host}:{self.port}: {error}") from error
        finally:
            connection.close()
        if status in (401, 403):
            given = "the key in" if self.api_key else "no key: set"
            raise ArgumentError(f"the endpoint answers {status} to {given} {KEY_VARIABLE}")
        try:
            return [str(model["id"]) for model in json.loads(body)["data"]] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            return None
