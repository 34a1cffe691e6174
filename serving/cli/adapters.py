"""`flotilla adapters`: LoRA adapters of a fleet, added and removed while it runs."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serving import adapting, runstate
from serving.cli.fleet import load
from serving.cli.keys import actor
from serving.cli.output import as_json, console, settings, table
from serving.cli.run import Json
from serving.errors import ConfigError
from serving.fleet.adapters import Adapter
from serving.fleet.catalogue import Fleet
from serving.ledger import adapters as store
from serving.ledger import tenants
from serving.ledger.store import Ledger

app = typer.Typer(no_args_is_help=True, help="Add, list and remove LoRA adapters while the fleet runs.")
Model = Annotated[str, typer.Argument(help="Model of the fleet file, or an alias of it.", show_default=False)]
Named = Annotated[str, typer.Argument(help="The adapter's name; callers ask for MODEL:NAME.", show_default=False)]
FleetOption = Annotated[Path | None, typer.Option(
    "--fleet", help="Fleet file; default: the running fleet's, or FLOTILLA_FLEET.", show_default=False)]


@app.command()
def add(
    model: Model,
    name: Named,
    source: Annotated[str, typer.Argument(help="Its folder, a hub id (org/name), or small:lora for a random one made "
                                               "here.", show_default=False)],
    tenant: Annotated[list[str] | None, typer.Option(help="Who may use it; may be repeated. Default: whoever may use "
                                                          "its model.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of the one that has its name.")
                       ] = False,
    trust_base: Annotated[bool, typer.Option("--trust-base", help="Take it for the model's whatever its names and "
                                                                  "shapes say.")] = False,
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """Check an adapter and add it. Gateways know it within seconds; replicas load it when it is first asked for."""
    own = settings()
    wanted = adapting.Wanted(model, name, source, description, tuple(tenant) if tenant else None, replace, trust_base)
    ledger, found = Ledger.open(own.database), _fleet(fleet)
    there = tenants.all_tenants(ledger) or found.tenants
    made = adapting.add(ledger, found, wanted, own.checkpoints_dir, time.time(), there, actor())
    if json:
        as_json(asdict(made))
    else:
        console.print(f"added {made.addressed} ({made.adapter_id}, rank {made.rank})", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_(
    removed: Annotated[bool, typer.Option("--removed", help="Also those that were removed.")] = False,
    fleet: FleetOption = None,
    json: Json = False,
) -> None:
    """List the adapters of the fleet file and those that were added."""
    found = _fleet(fleet)
    ledger = Ledger.open(settings().database)
    added = store.every(ledger) if removed else store.present(ledger)
    rows = [{"adapter": f"{model}:{name}", "adapter_id": None, "source": said.source, "tenants": said.tenants,
             "description": said.description, "rank": None, "state": "in the fleet file"}
            for model, spec in found.models.items() for name, said in spec.adapters.items()]
    rows += [{"adapter": a.addressed, "adapter_id": a.adapter_id, "source": a.source, "tenants": a.tenants,
              "description": a.description, "rank": a.rank, "state": _state(a, found)} for a in added]
    if json:
        as_json(rows)
        return
    table(["adapter", "id", "rank>", "source", "for tenants", "state", "for"],
          [(r["adapter"], r["adapter_id"] or "", r["rank"] or "", r["source"],
            "those of its model" if r["tenants"] is None else ", ".join(r["tenants"]), r["state"], r["description"])
           for r in rows])


@app.command()
def remove(model: Model, name: Named, fleet: FleetOption = None) -> None:
    """Remove an adapter that was added. Gateways refuse it within seconds; requests under way end."""
    gone = adapting.remove(Ledger.open(settings().database), _fleet(fleet), model, name, time.time(),
                           actor())
    console.print(f"removed {gone.addressed} ({gone.adapter_id})", highlight=False)


def _fleet(file: Path | None) -> Fleet:
    """The named fleet file, else the running fleet's, else the settings'. Raises: ConfigError."""
    own = settings()
    run = runstate.read(own.state_dir)
    running = Path(run.fleet_file) if file is None and run is not None and run.running else None
    if running is not None and not running.is_file():
        raise ConfigError(f"the running fleet's file {running} is gone; name it with --fleet")
    return load(file or running)[1]


def _state(adapter: Adapter, fleet: Fleet) -> str:
    if adapter.removed_at is not None:
        return f"removed {_date(adapter.removed_at)}"
    spec = fleet.models.get(adapter.model)
    if spec is None:
        return "its model is not in the fleet"
    if adapter.name in spec.adapters:
        return "the fleet file has one of its name"
    return "its model has no room for adapters" if spec.lora is None else f"added {_date(adapter.added_at)}"


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
