"""The part of the fleet file about pictures (and sounds) that requests name by URL."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from serving.fleet.config import Strict
from serving.fleet.specs import as_tuple

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_TYPE = re.compile(r"(?:image|audio|video)/[a-z0-9.+-]+")


class MediaSpec(Strict):
    """What requests may name by URL. Data URLs always pass within `max_mib`; file: never does."""

    hosts: tuple[str, ...] = Field((), description="Hosts that gateways fetch from over https: images.example.com, or "
                                                   "*.example.com for all below it. None: data URLs only.")
    types: tuple[str, ...] = Field(("image/png", "image/jpeg", "image/webp", "image/gif"),
                                   description="Content types that are taken from a host.")
    max_mib: float = Field(10.0, gt=0, description="Longest file, MiB, fetched or in a data URL.")
    max_parts: int = Field(8, ge=1, description="Most files that one request may name.")
    max_redirects: int = Field(3, ge=0, description="Most redirects on the way to a file; each is checked anew.")
    timeout_s: float = Field(10.0, gt=0, description="Longest time for all files of a request, seconds.")

    _lists = field_validator("hosts", "types", mode="before")(as_tuple)

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host's name: write it in lower case without scheme, port or path "
                                 "(images.example.com, *.example.com); addresses are never fetched from")
        return hosts

    @field_validator("types")
    @classmethod
    def _are_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for kind in types:
            if not _TYPE.fullmatch(kind):
                raise ValueError(f"{kind!r} is no type of pictures, sounds or films, such as image/png")
        return types

    @property
    def max_bytes(self) -> int:
        """Longest file, bytes."""
        return int(self.max_mib * 1024 * 1024)

    def allows(self, host: str) -> bool:
        """Whether gateways may fetch from a host, by its name in lower case."""
        return any(host.endswith(entry[1:]) if entry.startswith("*.") else host == entry for entry in self.hosts)
