"""Tenants in the ledger: seeded from the fleet file, changed by the admin API, read by every gateway."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert, select, update

from serving.errors import ConfigError, did_you_mean
from serving.fleet.specs import TenantSpec
from serving.ledger import audit, schema
from serving.ledger.store import Ledger

_TENANTS = schema.tenants
_FILE = "fleet file"


def all_tenants(ledger: Ledger) -> dict[str, TenantSpec]:
    """The tenants that there are now, by name; empty when none was ever seeded."""
    with ledger.snapshot() as db:
        query = select(_TENANTS.c.name, _TENANTS.c.spec).where(_TENANTS.c.removed_at.is_(None))
        return {name: TenantSpec.model_validate_json(spec)
                for name, spec in db.execute(query.order_by(_TENANTS.c.name))}


def seed(ledger: Ledger, found: Mapping[str, TenantSpec], now: float) -> None:
    """Bring the fleet file's tenants in. What has changed in the file since last time counts; else what was changed
    here stays. Tenants that came from the file and are no longer in it go; those made here stay."""
    c = _TENANTS.c
    with ledger.transaction() as db:
        known = {row.name: row for row in db.execute(select(_TENANTS))}
        for name, spec in found.items():
            text = spec.model_dump_json()
            row = known.get(name)
            if row is not None and row.seeded == text:
                continue
            values = {"spec": text, "seeded": text, "updated_at": now, "removed_at": None}
            if row is None:
                db.execute(insert(_TENANTS), {"name": name, **values})
            else:
                db.execute(update(_TENANTS).where(c.name == name).values(**values))
            audit.record(db, now, _FILE, "tenant.seed", f"tenant:{name}", _told(spec))
        for name, row in known.items():
            if name not in found and row.seeded and row.removed_at is None:
                db.execute(update(_TENANTS).where(c.name == name).values(seeded="", removed_at=now))
                audit.record(db, now, _FILE, "tenant.remove", f"tenant:{name}")


def put(ledger: Ledger, name: str, spec: TenantSpec, now: float, actor: str) -> None:
    """Make or change a tenant."""
    with ledger.transaction() as db:
        values = {"spec": spec.model_dump_json(), "updated_at": now, "removed_at": None}
        changed = db.execute(update(_TENANTS).where(_TENANTS.c.name == name).values(**values)).rowcount
        if not changed:
            db.execute(insert(_TENANTS), {"name": name, "seeded": "", **values})
        audit.record(db, now, actor, "tenant.set", f"tenant:{name}", _told(spec))


def remove(ledger: Ledger, name: str, now: float, actor: str) -> None:
    """End a tenant: its keys are good for nothing from then on. Raises: ConfigError when there is none."""
    with ledger.transaction() as db:
        there = _TENANTS.c.removed_at.is_(None)
        done = db.execute(update(_TENANTS).where(_TENANTS.c.name == name, there).values(removed_at=now)).rowcount
        if not done:
            names = db.execute(select(_TENANTS.c.name).where(there)).scalars().all()
            raise ConfigError(f"there is no tenant {name!r}; {did_you_mean(name, names, 'tenants')}")
        audit.record(db, now, actor, "tenant.remove", f"tenant:{name}")


def _told(spec: TenantSpec) -> dict[str, object]:
    return spec.model_dump(mode="json", exclude_defaults=True)
