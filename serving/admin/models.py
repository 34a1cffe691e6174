"""What the admin API takes and gives, as its document shows it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from serving.fleet.limits import LimitsSpec
from serving.fleet.tenants import DEFAULT_SCOPES, ApiKey, Priority, Scope

KeyName = Annotated[str, Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """What is sent: names that are not known are errors."""

    model_config = ConfigDict(extra="forbid")


class Listed(BaseModel):
    """What is answered."""


class NewKey(Body):
    """A key to be made."""

    tenant: str
    name: KeyName = "default"
    expires_at: float | None = Field(None, gt=0, description="Unix seconds; null: never.")
    models: list[str] | None = Field(None, description="Names that it is good for; null: all of its tenant's.")
    scopes: list[Scope] = Field(default_factory=lambda: list(DEFAULT_SCOPES), min_length=1)
    priority: Priority = "standard"
    limits: LimitsSpec = Field(default_factory=LimitsSpec)


class Rotation(Body):
    """How a key is rotated."""

    overlap_s: float = Field(0.0, ge=0, le=30 * 86_400, description="For how long the old key stays good, seconds.")


class Key(BaseModel):
    """A key, without its text."""

    key_id: str
    tenant: str
    name: str
    prefix: str = Field(description="What it begins with.")
    created_at: float
    revoked_at: float | None
    expires_at: float | None
    models: list[str] | None
    scopes: list[Scope]
    priority: Priority
    limits: dict[str, Any]
    last_used_at: float | None = Field(description="Unix seconds, within half a minute.")
    rotated_from: str | None

    @classmethod
    def of(cls, key: ApiKey) -> Key:
        """As lists show it."""
        from serving.ledger.keys import shown

        return cls.model_validate(shown(key))


class MadeKey(Key):
    """A key that has just been made. Its text is shown only here."""

    key: str


class Keys(BaseModel):
    """All keys."""

    data: list[Key]


class Tenants(BaseModel):
    """All tenants by name."""

    data: dict[str, dict[str, Any]]


class AuditEntry(BaseModel):
    """One act."""

    number: int
    at: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


class Audit(BaseModel):
    """Entries of the audit log, the newest first."""

    data: list[AuditEntry]


class UsageRows(BaseModel):
    """Usage: one row for each value of what it is by."""

    data: list[dict[str, Any]]


class Error(BaseModel):
    """What was wrong."""

    error: dict[str, Any]
