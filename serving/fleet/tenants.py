"""Tenants' API keys.

A key is shown once and kept only as a keyed hash: whoever reads the database can neither use nor test a key without
the pepper, which lives outside it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Literal, get_args

from serving.fleet.limits import NO_LIMITS, LimitsSpec

KEY_PREFIX = "flt_"
SHOWN = 12  # characters of a key that lists may show
Scope = Literal["inference", "usage", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("inference", "usage")
Priority = Literal["interactive", "standard", "batch"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
# vLLM's scheduler serves lower numbers first (those between are for who has its part of the seats already); in the
# gateway's queue a class multiplies its tenant's weight
ENGINE_PRIORITY: dict[Priority, int] = {"interactive": -2, "standard": 0, "batch": 2}
QUEUE_WEIGHT: dict[Priority, float] = {"interactive": 4.0, "standard": 1.0, "batch": 0.25}


@dataclass(frozen=True)
class Principal:
    """Who sends a request, and what it may do. `models`: None means all that its tenant may use."""

    tenant: str
    key_id: str
    models: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset(DEFAULT_SCOPES)
    priority: Priority = "standard"
    limits: LimitsSpec = NO_LIMITS


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. Times are Unix seconds; None means never. `models`: None means all of its tenant's."""

    key_id: str
    tenant: str
    name: str
    prefix: str
    digest: str
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    models: tuple[str, ...] | None = None
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    priority: Priority = "standard"
    limits: LimitsSpec = NO_LIMITS
    last_used_at: float | None = None
    rotated_from: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it has not been revoked. It may be over all the same: see `expired`."""
        return self.revoked_at is None

    def expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at

    def principal(self) -> Principal:
        """Who a request with this key is from."""
        models = None if self.models is None else frozenset(self.models)
        return Principal(self.tenant, self.key_id, models, frozenset(self.scopes), self.priority, self.limits)


def compose_key(entropy: bytes) -> str:
    """A key's text from at least 16 random bytes. Raises: ValueError for fewer."""
    if len(entropy) < 16:
        raise ValueError("a key needs at least 16 random bytes")
    return KEY_PREFIX + entropy.hex()


def digest(key: str, pepper: bytes) -> str:
    """The keyed hash of a key: HMAC-SHA-256 under the pepper, hex."""
    return hmac.digest(pepper, key.encode(), "sha256").hex()
