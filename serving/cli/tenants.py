"""`flotilla tenants` and `flotilla audit`: who uses the fleet, what they may use, and who has changed that."""

from __future__ import annotations

import json as json_module
import time
from typing import Annotated, Any

import typer

from serving.cli.fleet import load
from serving.cli.keys import Limits, actor, limits, names
from serving.cli.output import as_json, console, settings, table
from serving.cli.run import FleetFile, Json
from serving.errors import ConfigError
from serving.fleet.specs import TenantSpec
from serving.ledger import audit as log
from serving.ledger import tenants as store
from serving.ledger.store import Ledger

app = typer.Typer(no_args_is_help=True, help="List and change tenants. The fleet file's are brought in when it starts.")


@app.command(name="list")
def list_(file: FleetFile = None, json: Json = False) -> None:
    """List tenants with what they may use: the ledger's, or the fleet file's while the ledger has none."""
    found = _all(file)
    shown = {name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in found.items()}
    if json:
        as_json(shown)
        return
    table(["tenant", "for", "models", "weight>", "limits"],
          [(name, spec.description, "all" if spec.models is None else ", ".join(spec.models) or "none",
            f"{spec.weight:g}", _limits(spec)) for name, spec in found.items()])


@app.command(name="set")
def set_(
    name: Annotated[str, typer.Argument(help="The tenant, there already or new.")],
    description: Annotated[str | None, typer.Option(help="Who this is, for people.")] = None,
    models: Annotated[str | None, typer.Option(help="Models, adapters and routes that it may use, with commas; "
                                                    "'all' for all.")] = None,
    weight: Annotated[float | None, typer.Option(help="Its share when requests have to wait.")] = None,
    limit: Limits = None,
    file: FleetFile = None,
) -> None:
    """Make a tenant or change what is named of one; --limit replaces all of its limits. Gateways follow in seconds."""
    _, fleet = load(file)
    before = _all(file).get(name, TenantSpec())
    changes: dict[str, Any] = {"description": description, "weight": weight}
    if models is not None and models != "all":
        changes["models"] = names(models, fleet.callable_names(), "--models:")
    if limit is not None:
        changes["limits"] = limits(limit)
    values = {n: getattr(before, n) for n in TenantSpec.model_fields} | {
        n: v for n, v in changes.items() if v is not None}
    if models == "all":
        values["models"] = None
    try:
        spec = TenantSpec.model_validate(values)
    except ValueError as error:
        raise ConfigError(f"the tenant {name!r}: {error}") from None
    _checked(name)
    store.put(Ledger.open(settings().database), name, spec, time.time(), actor())
    console.print(f"{name}: {_limits(spec) or 'no limits'}", highlight=False)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The tenant.")]) -> None:
    """End a tenant: its keys are good for nothing from then on."""
    store.remove(Ledger.open(settings().database), name, time.time(), actor())
    console.print(f"removed {name}", highlight=False)


def audit(
    limit: Annotated[int, typer.Option(help="How many entries.", min=1)] = 50,
    subject: Annotated[str | None, typer.Option(help="Only those about this: key:ID or tenant:NAME.")] = None,
    json: Json = False,
) -> None:
    """Show who has made, changed or ended keys and tenants, the newest first. Entries cannot be changed."""
    found = log.entries(Ledger.open(settings().database), limit, None, subject)
    if json:
        as_json([vars(entry) for entry in found])
        return
    table(["when", "who", "did", "to", "what"],
          [(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e.at)), e.actor, e.action, e.subject,
            json_module.dumps({k: v for k, v in e.details.items() if v not in (None, {}, [])})) for e in found])


def _all(file: Any) -> dict[str, TenantSpec]:
    return store.all_tenants(Ledger.open(settings().database)) or dict(load(file)[1].tenants)


def _limits(spec: TenantSpec) -> str:
    """As --limit takes them."""
    parts = []
    for name, value in spec.limits.model_dump(mode="json", exclude_none=True).items():
        marks = value.items() if isinstance(value, dict) else ()
        parts += [f"{name}.{mark}={usd:g}" for mark, usd in marks] or [f"{name}={value}"]
    return "; ".join([*parts, *(f"on {model}" for model in spec.model_limits)])


def _checked(name: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from serving.fleet.specs import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
