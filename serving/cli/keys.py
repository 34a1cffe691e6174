"""`flotilla keys`: who may call the API."""

from __future__ import annotations

import getpass
import time
from enum import StrEnum
from typing import Annotated

import typer

from serving.cli.cost_args import moment
from serving.cli.fleet import load
from serving.cli.output import as_json, console, settings, stderr, table
from serving.cli.run import FleetFile, Json
from serving.errors import ConfigError, did_you_mean
from serving.fleet.catalogue import Fleet
from serving.fleet.limits import LimitsSpec, parsed
from serving.fleet.tenants import DEFAULT_SCOPES, PRIORITIES, SCOPES, ApiKey, Scope
from serving.ledger import keys as store
from serving.ledger import tenants
from serving.ledger.asking import UNITS
from serving.ledger.store import Ledger

app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")
Class = StrEnum("Class", list(PRIORITIES))
Limits = Annotated[list[str] | None, typer.Option(
    "--limit", metavar="NAME=NUMBER", help="What it may use, such as requests_per_minute=60, concurrent_requests=4 or "
    "budget_per_day.hard_usd=5; may be repeated. Names as under limits: in a fleet file.")]
Which = Annotated[str, typer.Argument(help="The key's id, the characters it begins with, or its name.")]


def actor() -> str:
    """Who types, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def limits(pairs: list[str] | None) -> LimitsSpec:
    """Limits of a command line. Raises: ConfigError."""
    try:
        return parsed(pairs or [])
    except ValueError as error:
        found = getattr(error, "errors", None)
        if found is None:
            raise ConfigError(f"--limit {error}") from None
        first = found()[0]
        name, known = ".".join(map(str, first["loc"])), LimitsSpec.model_fields
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(name, known, "limits")
            raise ConfigError(f"--limit {name}: there is no such limit; {hint}") from None
        raise ConfigError(f"--limit {name}: {first['msg'].removeprefix('Value error, ')}") from None


def names(listed: str | None, known: dict[str, str], what: str) -> tuple[str, ...] | None:
    """Names with commas between them; None where there are none. Raises: ConfigError for one that is not known."""
    if listed is None:
        return None
    found = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    for name in found:
        if name not in known:
            raise ConfigError(f"{what} {name!r} is not known; {did_you_mean(name, known, 'known')}")
    return found


def known_tenant(name: str, fleet: Fleet, ledger: Ledger) -> None:
    """Raises: ConfigError when neither the fleet file nor the ledger has this tenant."""
    there = {**fleet.tenants, **tenants.all_tenants(ledger)}
    if name not in there:
        raise ConfigError(f"the fleet {fleet.name!r} has no tenant {name!r}; {did_you_mean(name, there, 'tenants')}")


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant that the key belongs to.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    expires: Annotated[str | None, typer.Option(help="When it ends: 30d, 12h from now, or a date such as 2027-01-31 "
                                                     "(UTC). Left out: never.")] = None,
    models: Annotated[str | None, typer.Option(help="Models, adapters and routes that it is good for, with commas. "
                                                    "Left out: all of its tenant's.")] = None,
    scopes: Annotated[str, typer.Option(help=f"What it may do, with commas: {', '.join(SCOPES)}.")
                      ] = ",".join(DEFAULT_SCOPES),
    priority: Annotated[Class, typer.Option(help="Its class when requests have to wait.")] = Class.standard,
    limit: Limits = None,
    file: FleetFile = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It is shown only now; the ledger keeps a keyed hash."""
    own = settings()
    _, fleet = load(file)
    ledger = Ledger.open(own.database)
    known_tenant(tenant, fleet, ledger)
    asked = names(scopes, dict.fromkeys(SCOPES, ""), "--scopes:")
    grant = store.Grant(_ends(expires), names(models, fleet.callable_names(), "--models:"),
                        _scopes(asked or ()), priority.value, limits(limit))  # type: ignore[arg-type]
    text, key = store.create(ledger, tenant, name, own.pepper(), time.time(), grant, actor())
    _print(text, key, json)


def _scopes(asked: tuple[str, ...]) -> tuple[Scope, ...]:
    return tuple(scope for scope in SCOPES if scope in asked)


def _seconds(text: str) -> int | None:
    """Of 30m, 12h or 7d; None of anything else."""
    return int(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS and text[:-1].isdigit() else None


def _ends(text: str | None) -> float | None:
    if text is None:
        return None
    if (seconds := _seconds(text)) is not None:
        return time.time() + seconds
    at = moment(text, "--expires", 0.0)
    if at <= time.time():
        raise ConfigError(f"--expires {text!r} is over already")
    return at


def _print(text: str, key: ApiKey, json: bool) -> None:
    if json:
        as_json({"key": text, **store.shown(key)})
    else:
        typer.echo(text)
        stderr.print(f"{key.key_id} for tenant {key.tenant}; it will not be shown again", style="dim")


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List all keys, without their text."""
    found, now = store.all_keys(Ledger.open(settings().database)), time.time()
    if json:
        as_json([store.shown(key) for key in found])
        return
    table(["id", "tenant", "name", "begins with", "made", "last used", "good for", "state"],
          [(k.key_id, k.tenant, k.name, f"{k.prefix}…", _date(k.created_at), _date(k.last_used_at), _good_for(k),
            _state(k, now)) for k in found])


def _good_for(key: ApiKey) -> str:
    parts = [*(key.models or ()), *([] if key.scopes == DEFAULT_SCOPES else [f"scopes {', '.join(key.scopes)}"]),
             *([] if key.priority == "standard" else [key.priority]), *(["limits"] if key.limits.any else [])]
    return "; ".join(parts) or "all"


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    if key.expired(now):
        return f"expired {_date(key.expires_at)}"
    return "usable" if key.expires_at is None else f"until {_date(key.expires_at)}"


@app.command()
def revoke(which: Which) -> None:
    """Revoke a key; gateways refuse it within seconds."""
    key = store.revoke(Ledger.open(settings().database), which, time.time(), actor())
    console.print(f"revoked {key.key_id} ({key.tenant}, {key.name})", highlight=False)


@app.command()
def rotate(
    which: Which,
    overlap: Annotated[str, typer.Option(help="For how long the old one stays good: 0, 30m, 12h, 7d.")] = "0",
    json: Json = False,
) -> None:
    """Make a key that is good for the same, print it, and end the old one."""
    own = settings()
    seconds = 0 if overlap == "0" else _seconds(overlap)
    if seconds is None:
        raise ConfigError(f"--overlap {overlap!r}: write 0, or a number and s, m, h, d or w (12h)")
    text, key = store.rotate(Ledger.open(own.database), which, own.pepper(), time.time(), seconds, actor())
    _print(text, key, json)


def _date(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
