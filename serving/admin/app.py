"""The admin API's application: routes under /admin/v1, each of which says who may ask and writes down who did."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Annotated, Any, Protocol

from fastapi import Body, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from serving import errors
from serving.admin import adapters, models
from serving.errors import ConfigError, FlotillaError, InvalidKey, MalformedRequest, ScopeMissing
from serving.fleet.specs import Name, TenantSpec
from serving.fleet.tenants import Principal
from serving.ledger import asking, audit, keys, tenants
from serving.ledger.store import Ledger

_STATUS: dict[type[FlotillaError], int] = {
    errors.MalformedRequest: 400, errors.InvalidKey: 401, errors.ScopeMissing: 403, errors.ConfigError: 400,
    errors.NoSuchRow: 404, errors.ConsoleFull: 429, errors.GatewayAway: 502, errors.LedgerError: 503,
    errors.KeysUnavailable: 503, errors.FlotillaError: 500}
_REFUSED: dict[int | str, dict[str, Any]] = {
    code: {"model": models.Error} for code in (400, 401, 403, 503)}


class Keyring(Protocol):
    """Knows keys and tokens."""

    async def principal(self, key: str) -> Principal:
        """Who this belongs to. Raises: InvalidKey, KeysUnavailable."""
        ...


async def actor(request: Request) -> str:
    """Who asks, by key id; only an admin may. Raises: InvalidKey, KeysUnavailable, ScopeMissing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InvalidKey("send an admin's key as `Authorization: Bearer flt_…`")
    who: Principal = await request.app.state.keyring.principal(key.strip())
    if "admin" not in who.scopes:
        raise ScopeMissing("admin", who.scopes)
    return who.key_id


Actor = Annotated[str, Depends(actor)]
Which = Annotated[str, Path(description="The key's id, the characters it begins with, or its name.")]


def application(ledger: Ledger, keyring: Keyring, pepper: bytes, names: Callable[[], Collection[str]],
                clock: Callable[[], float] = time.time, place: adapters.Place | None = None) -> FastAPI:
    """The application. `names`: what keys and tenants may be allowed: models, adapters, routes, aliases. `place`: what
    adapters are checked against; None: there are no routes for them."""
    app = FastAPI(title="Flotilla admin", version="1", docs_url=None, redoc_url=None,
                  openapi_url="/admin/v1/openapi.json",
                  description="Keys, tenants, usage and the audit log. Bring a key with the scope `admin` as "
                              "`Authorization: Bearer flt_…`.")
    app.add_exception_handler(FlotillaError, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]

    app.state.keyring = keyring

    def known(asked: Collection[str] | None, tenant: str | None) -> None:
        there = names()
        for name in asked or ():
            if name not in there:
                raise ConfigError(f"models: {name!r} is not known; {errors.did_you_mean(name, sorted(there), 'known')}")
        if tenant is not None and tenant not in (found := tenants.all_tenants(ledger)):
            raise ConfigError(f"there is no tenant {tenant!r}; {errors.did_you_mean(tenant, found, 'tenants')}")

    @app.get("/admin/v1/keys", responses=_REFUSED)
    def list_keys(who: Actor, tenant: str | None = None) -> models.Keys:
        """List keys, without their text."""
        found = keys.all_keys(ledger)
        return models.Keys(data=[models.Key.of(k) for k in found if tenant in (None, k.tenant)])

    @app.post("/admin/v1/keys", status_code=201, responses=_REFUSED)
    def create_key(who: Actor, new: models.NewKey) -> models.MadeKey:
        """Make a key. Its text is in this answer and nowhere else."""
        known(new.models, new.tenant)
        grant = keys.Grant(new.expires_at, None if new.models is None else tuple(new.models),
                           tuple(dict.fromkeys(new.scopes)), new.priority, new.limits)
        text, key = keys.create(ledger, new.tenant, new.name, pepper, clock(), grant, who)
        return models.MadeKey(**models.Key.of(key).model_dump(), key=text)

    @app.post("/admin/v1/keys/{which}/rotate", status_code=201, responses=_REFUSED)
    def rotate_key(who: Actor, which: Which,
                   rotation: Annotated[models.Rotation | None, Body()] = None) -> models.MadeKey:
        """Make a key that is good for the same, and end the old one."""
        overlap_s = rotation.overlap_s if rotation else 0.0
        text, key = keys.rotate(ledger, which, pepper, clock(), overlap_s, who)
        return models.MadeKey(**models.Key.of(key).model_dump(), key=text)

    @app.delete("/admin/v1/keys/{which}", responses=_REFUSED)
    def revoke_key(who: Actor, which: Which) -> models.Key:
        """Revoke a key; every gateway refuses it within seconds."""
        return models.Key.of(keys.revoke(ledger, which, clock(), who))

    @app.get("/admin/v1/tenants", responses=_REFUSED)
    def list_tenants(who: Actor) -> models.Tenants:
        """List tenants with what they may use."""
        return models.Tenants(data={name: spec.model_dump(mode="json", exclude_defaults=True)
                                    for name, spec in tenants.all_tenants(ledger).items()})

    @app.put("/admin/v1/tenants/{name}", responses=_REFUSED)
    def set_tenant(who: Actor, name: Name, spec: Annotated[dict[str, Any], Body(
            description="As under `tenants` of a fleet file.")]) -> models.Tenants:
        """Make or change a tenant, as a whole. What the fleet file says of it counts again once that changes."""
        try:
            found = TenantSpec.model_validate(spec)
        except ValueError as error:
            raise MalformedRequest(_in_short(error)) from None
        known(found.models, None)
        tenants.put(ledger, name, found, clock(), who)
        return models.Tenants(data={name: found.model_dump(mode="json", exclude_defaults=True)})

    @app.delete("/admin/v1/tenants/{name}", responses=_REFUSED)
    def remove_tenant(who: Actor, name: str) -> models.Tenants:
        """End a tenant: its keys are good for nothing from then on."""
        tenants.remove(ledger, name, clock(), who)
        return models.Tenants(data={})

    @app.get("/admin/v1/usage", responses=_REFUSED)
    def usage(who: Actor, request: Request,
              by: Annotated[str, Query(description="Any of tenant, key, model, adapter, preset, day, with "
                                                     "commas.")] = "tenant,model",
              since: Annotated[str | None, Query(description="30m, 12h, 7d ago, or a moment (UTC).")] = None,
              until: Annotated[str | None, Query(description="Not included; like since.")] = None,
              tenant: str | None = None, key: str | None = None, model: str | None = None) -> models.UsageRows:
        """What was used and what it cost; sums are the ledger's."""
        asked = dict(request.query_params)
        allowed = ("by", "since", "until", "tenant", "key", "model")
        return models.UsageRows(data=asking.rows(ledger, asked, clock(), ("tenant", "model"), allowed, {}))

    @app.get("/admin/v1/audit", responses=_REFUSED)
    def read_audit(who: Actor, limit: Annotated[int, Query(ge=1, le=1000)] = 100, before: int | None = None,
                   subject: str | None = None) -> models.Audit:
        """The audit log, the newest entries first. `before`: a number, to read on."""
        found = audit.entries(ledger, limit, before, subject)
        return models.Audit(data=[models.AuditEntry(**vars(entry)) for entry in found])

    if place is not None:
        app.include_router(adapters.routes(ledger, place, Depends(actor), _REFUSED, clock))
    return app


def _refused(request: Request, error: FlotillaError) -> JSONResponse:
    code = next(_STATUS[c] for c in type(error).__mro__ if c in _STATUS)
    return JSONResponse({"error": {"message": str(error), "code": code}}, code,
                        {"www-authenticate": "Bearer"} if code == 401 else None)


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """What was wrong, without what was sent: it may hold a secret."""
    told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    return JSONResponse({"error": {"message": told, "code": 400}}, 400)


def _in_short(error: ValueError) -> str:
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found()[:5])
