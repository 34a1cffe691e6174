"""`flotilla keys`: who may call the API."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from serving.cli.fleet import load
from serving.cli.output import as_json, console, settings, stderr, table
from serving.cli.run import FleetFile, Json
from serving.errors import ConfigError, nearest
from serving.ledger import keys as store
from serving.ledger.store import Ledger

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant of the fleet file that the key belongs to.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    file: FleetFile = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It is shown only now; the ledger keeps a keyed hash."""
    own = settings()
    _, fleet = load(file)
    if tenant not in fleet.tenants:
        near = nearest(tenant, fleet.tenants)
        hint = f"did you mean {near!r}?" if near else f"tenants: {', '.join(fleet.tenants)}"
        raise ConfigError(f"the fleet {fleet.name!r} has no tenant {tenant!r}; {hint}")
    text, key = store.create(Ledger.open(own.database), tenant, name, own.pepper(), time.time())
    if json:
        as_json({"key": text, "key_id": key.key_id, "tenant": tenant, "name": name})
    else:
        typer.echo(text)
        stderr.print(f"{key.key_id} for tenant {tenant}; it will not be shown again", style="dim")


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List all keys, without their text."""
    found = store.all_keys(Ledger.open(settings().database))
    if json:
        as_json([{k: v for k, v in asdict(key).items() if k != "digest"} for key in found])
        return
    table(["id", "tenant", "name", "begins with", "made", "state"],
          [(k.key_id, k.tenant, k.name, f"{k.prefix}…", _date(k.created_at),
            "usable" if k.usable else f"revoked {_date(k.revoked_at or 0)}") for k in found])


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(help="The key's id, the characters it begins with, or its name.")],
) -> None:
    """Revoke a key; gateways refuse it within seconds."""
    key = store.revoke(Ledger.open(settings().database), which, time.time())
    console.print(f"revoked {key.key_id} ({key.tenant}, {key.name})", highlight=False)


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
