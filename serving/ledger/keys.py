"""API keys in the ledger: created, listed, revoked. Only keyed hashes are kept."""

from __future__ import annotations

import secrets
from dataclasses import asdict

from sqlalchemy import insert, select, update

from serving.errors import ConfigError
from serving.fleet.tenants import SHOWN, ApiKey, compose_key, digest
from serving.ledger import schema
from serving.ledger.store import Ledger

_KEYS = schema.keys


def create(ledger: Ledger, tenant: str, name: str, pepper: bytes, now: float) -> tuple[str, ApiKey]:
    """Make a key. Returns (the key's text, shown only here; what the ledger keeps)."""
    text = compose_key(secrets.token_bytes(24))
    key = ApiKey(f"key_{secrets.token_hex(6)}", tenant, name, text[:SHOWN], digest(text, pepper), now)
    with ledger.transaction() as db:
        db.execute(insert(_KEYS), asdict(key))
    return text, key


def all_keys(ledger: Ledger) -> list[ApiKey]:
    """Every key, oldest first."""
    with ledger.snapshot() as db:
        return [ApiKey(*row) for row in db.execute(select(_KEYS).order_by(_KEYS.c.created_at, _KEYS.c.key_id))]


def revoke(ledger: Ledger, which: str, now: float) -> ApiKey:
    """Revoke the key with this id, shown prefix or unique name. Raises: ConfigError when none or several match."""
    found = [k for k in all_keys(ledger) if which in (k.key_id, k.prefix, k.name)]
    usable = [k for k in found if k.usable]
    if len(usable) != 1:
        what = "no usable key matches" if not usable else f"{len(usable)} keys match"
        raise ConfigError(f"{what} {which!r}; `flotilla keys list` shows ids")
    with ledger.transaction() as db:
        db.execute(update(_KEYS).where(_KEYS.c.key_id == usable[0].key_id).values(revoked_at=now))
    return usable[0]
