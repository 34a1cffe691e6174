"""API keys in the ledger: made, listed, rotated, revoked, and when they were last used. Only keyed hashes are kept."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from serving.errors import ConfigError
from serving.fleet.limits import NO_LIMITS, LimitsSpec
from serving.fleet.tenants import DEFAULT_SCOPES, SHOWN, ApiKey, Priority, Scope, compose_key, digest
from serving.ledger import audit, schema
from serving.ledger.store import Ledger

_KEYS = schema.keys
_NOBODY = "flotilla"  # who made a key that no person asked for


@dataclass(frozen=True)
class Grant:
    """What a key is good for. `expires_at`: Unix seconds; `models`: None means all of its tenant's."""

    expires_at: float | None = None
    models: tuple[str, ...] | None = None
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    priority: Priority = "standard"
    limits: LimitsSpec = NO_LIMITS

    def told(self) -> dict[str, Any]:
        """As the audit log has it."""
        return {"expires_at": self.expires_at, "models": self.models, "scopes": self.scopes,
                "priority": self.priority, "limits": self.limits.model_dump(mode="json", exclude_none=True)}


def create(ledger: Ledger, tenant: str, name: str, pepper: bytes, now: float, grant: Grant | None = None,
           actor: str = _NOBODY) -> tuple[str, ApiKey]:
    """Make a key. Returns (the key's text, shown only here; what the ledger keeps)."""
    with ledger.transaction() as db:
        return _make(db, tenant, name, pepper, now, grant or Grant(), actor, "key.create")


def _make(db: Connection, tenant: str, name: str, pepper: bytes, now: float, grant: Grant, actor: str, action: str,
          rotated_from: str | None = None) -> tuple[str, ApiKey]:
    text = compose_key(secrets.token_bytes(24))
    key = ApiKey(f"key_{secrets.token_hex(6)}", tenant, name, text[:SHOWN], digest(text, pepper), now, None,
                 grant.expires_at, grant.models, grant.scopes, grant.priority, grant.limits, None, rotated_from)
    db.execute(insert(_KEYS), _row(key))
    more = {"rotated_from": rotated_from} if rotated_from else {}
    audit.record(db, now, actor, action, f"key:{key.key_id}", {"tenant": tenant, "name": name, **grant.told(), **more})
    return text, key


def all_keys(ledger: Ledger) -> list[ApiKey]:
    """Every key, oldest first."""
    with ledger.snapshot() as db:
        query = select(_KEYS).order_by(_KEYS.c.created_at, _KEYS.c.key_id)
        return [_key(row) for row in db.execute(query).mappings()]


def find(ledger: Ledger, which: str) -> ApiKey:
    """The usable key with this id, shown prefix or unique name. Raises: ConfigError when none or several match."""
    found = [k for k in all_keys(ledger) if which in (k.key_id, k.prefix, k.name)]
    usable = [k for k in found if k.usable]
    if len(usable) != 1:
        what = "no usable key matches" if not usable else f"{len(usable)} keys match"
        raise ConfigError(f"{what} {which!r}; `flotilla keys list` shows ids")
    return usable[0]


def revoke(ledger: Ledger, which: str, now: float, actor: str = _NOBODY) -> ApiKey:
    """Revoke the key with this id, shown prefix or unique name. Raises: ConfigError when none or several match."""
    key = find(ledger, which)
    with ledger.transaction() as db:
        db.execute(update(_KEYS).where(_KEYS.c.key_id == key.key_id).values(revoked_at=now))
        audit.record(db, now, actor, "key.revoke", f"key:{key.key_id}", {"tenant": key.tenant, "name": key.name})
    return replace(key, revoked_at=now)


def rotate(ledger: Ledger, which: str, pepper: bytes, now: float, overlap_s: float = 0.0,
           actor: str = _NOBODY) -> tuple[str, ApiKey]:
    """Make a key that is good for the same, and end the old one after `overlap_s` seconds; at once by default.

    Returns as `create`. Raises: ConfigError when none or several match.
    """
    old = find(ledger, which)
    grant = Grant(old.expires_at, old.models, old.scopes, old.priority, old.limits)
    with ledger.transaction() as db:
        made = _make(db, old.tenant, old.name, pepper, now, grant, actor, "key.rotate", old.key_id)
        ends = min(now + overlap_s, old.expires_at or float("inf"))
        last = {"expires_at": ends} if overlap_s > 0 else {"revoked_at": now}
        db.execute(update(_KEYS).where(_KEYS.c.key_id == old.key_id).values(**last))
    return made


def note_used(ledger: Ledger, used: Mapping[str, float]) -> None:
    """When keys were last used, Unix seconds by id; an older moment changes nothing."""
    if not used:
        return
    c = _KEYS.c
    statement = (update(_KEYS).where(c.key_id == bindparam("which"),
                                     or_(c.last_used_at.is_(None), c.last_used_at < bindparam("moment")))
                 .values(last_used_at=bindparam("moment")))
    with ledger.transaction() as db:
        db.execute(statement, [{"which": key_id, "moment": at} for key_id, at in sorted(used.items())])


def shown(key: ApiKey) -> dict[str, Any]:
    """What lists may show of a key: all but its hash."""
    found = {name: getattr(key, name) for name in key.__dataclass_fields__ if name != "digest"}
    return found | {"limits": key.limits.model_dump(mode="json", exclude_none=True)}


def _row(key: ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in key.__dataclass_fields__} | {
        "models": None if key.models is None else json.dumps(key.models), "scopes": json.dumps(key.scopes),
        "limits": key.limits.model_dump_json(exclude_none=True)}


def _key(row: RowMapping) -> ApiKey:
    known = ApiKey(*(row[name] for name in ("key_id", "tenant", "name", "prefix", "digest", "created_at")))
    return replace(
        known, revoked_at=row["revoked_at"], expires_at=row["expires_at"],
        models=None if row["models"] is None else tuple(json.loads(row["models"])),
        scopes=tuple(json.loads(row["scopes"])), priority=row["priority"],
        limits=LimitsSpec.model_validate_json(row["limits"]), last_used_at=row["last_used_at"],
        rotated_from=row["rotated_from"])
