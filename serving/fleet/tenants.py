"""Tenants and their API keys.

A key is shown once and kept only as a keyed hash: whoever reads the database can neither use nor test a key without
the pepper, which lives outside it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

KEY_PREFIX = "flt_"
SHOWN = 12  # characters of a key that lists may show


@dataclass(frozen=True)
class Principal:
    """Who sends a request."""

    tenant: str
    key_id: str


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. Times are Unix seconds; None means never."""

    key_id: str
    tenant: str
    name: str
    prefix: str
    digest: str
    created_at: float
    revoked_at: float | None = None

    @property
    def usable(self) -> bool:
        """Whether a request with this key may pass."""
        return self.revoked_at is None


def compose_key(entropy: bytes) -> str:
    """A key's text from at least 16 random bytes. Raises: ValueError for fewer."""
    if len(entropy) < 16:
        raise ValueError("a key needs at least 16 random bytes")
    return KEY_PREFIX + entropy.hex()


def digest(key: str, pepper: bytes) -> str:
    """The keyed hash of a key: HMAC-SHA-256 under the pepper, hex."""
    return hmac.digest(pepper, key.encode(), "sha256").hex()
