"""`flotilla check`, `schema`, `models`, `env`: what the files and the environment say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.output import as_json, console, settings, table
from serving.cli.run import FleetFile, Json
from serving.costs.figures import dollars
from serving.errors import ConfigError
from serving.fleet import sizing
from serving.fleet.accelerator_book import when
from serving.fleet.accelerators import price_range
from serving.fleet.catalogue import Fleet, comparisons, price_book
from serving.fleet.costspecs import ROLES
from serving.fleet.money import usd
from serving.fleet.prices import PriceBook
from serving.plan import Changes, fleet


def load(file: Path | None) -> tuple[Path, Fleet]:
    """The fleet file asked for, or the settings' one. Raises: ConfigError."""
    path = file or settings().fleet
    return path, fleet(path, Changes({}))


def check(
    file: FleetFile = None,
    engine: Annotated[bool, typer.Option("--engine", help="Ask the installed vLLM's own argument parser, too; takes "
                                                          "seconds.")] = False,
    profiles: Annotated[Path | None, typer.Option(help="Engine profiles by model (YAML), as `flotilla profile fit` "
                                                       "makes them: promises that those replicas cannot keep are "
                                                       "refused.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Check a fleet file, for this machine and for a cluster. Exits with 2 and names key, line and nearest right name
    when something is wrong."""
    path, found = load(file)
    can_be_installed(found, path)
    if profiles is not None:
        hold_to(found, path, profiles)
    if engine:
        ask_vllm(found)
    book, now = price_book(found, path), time.time()
    warnings, changes = missing_roles(found) + tight(found), price_changes(found, now)
    least, most = (usd(price) for price in hourly(found, now))
    if json:
        as_json({"ok": True, "fleet": found.name, "models": list(found.models), "routes": list(found.routes),
                 "presets": list(found.presets), "adapters": adapters(found),
                 "usd_per_hour_at_minimum": [least, most], "price_changes": changes,
                 "price_books": books(found, book), "licences": licences(found),
                 "warnings": warnings})
        return
    parts = [f"{len(things)} {kind}{'s' * (len(things) != 1)}" for kind, things in [
        ("model", found.models), ("adapter", adapters(found)), ("route", found.routes),
        ("preset", found.presets)] if things]
    cost = dollars(least) if least == most else f"{dollars(least)} to {dollars(most)} (by the nodes' labels)"
    console.print(f"[green]ok[/]  {path}: fleet {found.name}, {', '.join(parts)}, {cost} per hour at minimum",
                  highlight=False, soft_wrap=True)
    for name, version in books(found, book).items():
        console.print(f"    price book {name}: {version}", highlight=False, soft_wrap=True)
    for name, licence in licences(found).items():
        console.print(f"    licence of {name}: {licence_text(licence)}", highlight=False, soft_wrap=True)
    for change in changes:
        console.print(f"    {change}", highlight=False, soft_wrap=True)
    for warning in warnings:
        console.print(f"[yellow]warning[/]  {warning}", highlight=False, soft_wrap=True)


def can_be_installed(found: Fleet, path: Path) -> None:
    """Make the chart's values of it and throw them away: what is accepted is what `flotilla render` renders. Raises:
    ConfigError as that does."""
    from serving.cli.render import fleet_values

    fleet_values(path, found)


def hold_to(found: Fleet, path: Path, file: Path) -> None:
    """Hold every model's promises to what its replica does by a file of engine profiles; models that it lacks are left
    alone. Raises: ConfigError with the numbers."""
    from serving.cli import simulated
    from serving.fleet.autoscaling.slo import SloRule

    known = simulated.read_profiles(file)
    for name in found.models:
        if known is not None and known.has(name, found.variant(name)):
            simulated.service(found, name, {name: simulated.profile_of(found, path, name, known)}, SloRule(), 0.0)


def ask_vllm(found: Fleet) -> None:
    """Give every model's engine arguments to vLLM's parser. Raises: ConfigError with what it says."""
    from serving.engines import arguments
    from serving.engines.deployment import engine_kwargs

    for name, model in found.models.items():
        own = {key: value for key, value in engine_kwargs(model, {}).items() if key != "scheduler_cls"}
        if said := arguments.parse(own):
            raise ConfigError(f"models.{name}.engine: vLLM's own parser refuses its arguments: {said}")


def missing_roles(found: Fleet) -> list[str]:
    """For each model, which comparison is missing: one without the others misleads."""
    lines = []
    for name, model in found.models.items():
        missing = [role for role in ROLES if role not in {c.role for c in model.comparators}]
        if missing:
            lines.append(f"models.{name}: no comparator that is {', '.join(missing)}; a saving against one kind of API "
                         "says nothing about the others")
    return lines


def tight(found: Fleet) -> list[str]:
    """Models that fit their devices with little room."""
    warnings = [(name, sizing.tightness(model, found.accelerators[model.accelerator], entry))
                for name, model in found.models.items() if (entry := found.entry(name)) and not model.small_family]
    return [f"models.{name}: {text}" for name, text in warnings if text]


def licences(found: Fleet) -> dict[str, dict[str, object]]:
    """Under which conditions the weights of each model may be used, where the file or the catalogue says so."""
    return {name: model.licence.model_dump() for name, model in found.models.items() if model.licence}


def licence_text(licence: Mapping[str, object]) -> str:
    """`Llama 3.1 Community License, gated: …`."""
    gated = ", gated: the hub gives the weights out after consent only" if licence["gated"] else ""
    return f"{licence['name']}{gated}" + (f"; {licence['conditions']}" if licence["conditions"] else "")


def hourly(found: Fleet, now: float) -> tuple[int, int]:
    """What the replicas that always run, gateways, head node and storage cost per hour: least and most, nano-USD.

    They differ where a price depends on the node.
    """
    overhead = found.costs.overhead
    least = most = overhead.nanousd_per_hour("gateway") * found.gateway.replicas + sum(
        overhead.nanousd_per_hour(role) for role in ("head", "storage"))
    for name, model in found.models.items():
        low, high = replica_price(found, name, now)
        least, most = least + low * model.replicas.min, most + high * model.replicas.min
    return least, most


def replica_price(found: Fleet, name: str, now: float) -> tuple[int, int]:
    """The least and the most that a replica of a model costs per hour now, nano-USD."""
    model = found.models[name]
    profile = found.accelerators[model.accelerator]
    if profile.needs_labels:
        low, high = price_range(profile, found.accelerator_book)
        return low * model.devices, high * model.devices
    price = found.price_nanousd_per_hour(name, now)
    return price, price


def price_changes(found: Fleet, now: float) -> list[str]:
    """Price changes of models that are dated in the future."""
    lines = []
    for name, model in found.models.items():
        if found.accelerators[model.accelerator].needs_labels:
            continue
        for at, price in found.price_line(name).changes:
            if at > now:
                lines.append(f"models.{name}: a replica costs {dollars(usd(price))} per hour from {when(at)} on")
    return lines


def books(found: Fleet, book: PriceBook) -> dict[str, str]:
    """The price books of a fleet and their versions."""
    own = found.accelerator_book
    return {found.prices: book.version} | ({found.accelerator_prices or own.name: own.version} if own else {})


def schema() -> None:
    """Print the JSON Schema of fleet files."""
    as_json(Fleet.model_json_schema())


def adapters(found: Fleet) -> list[str]:
    """The fleet's adapters as callers name them."""
    return [f"{name}:{adapter}" for name, model in found.models.items() for adapter in model.adapters]


def spread(variants: dict[str, int]) -> str:
    """Weights as shares: `qwen 90%, llama 10%`."""
    return ", ".join(f"{name} {100 * weight / sum(variants.values()):.3g}%" for name, weight in variants.items())


def models(file: FleetFile = None, json: Json = False) -> None:
    """List the models of a fleet file with adapters, routes and presets, what they cost and are compared with."""
    path, found = load(file)
    book, now = price_book(found, path), time.time()
    price = {name: [usd(p) for p in replica_price(found, name, now)] for name in found.models}
    if json:
        as_json({name: m.model_dump(mode="json") | {
            "variant": found.variant(name),
            # None where it depends on the node
            "price_usd_per_hour": price[name][0] if price[name][0] == price[name][1] else None,
            "price_usd_per_hour_range": price[name],
            "routes": {route: r.variants[name] for route, r in found.routes.items() if name in r.variants},
        } for name, m in found.models.items()})
        return
    licensed = any(m.licence for m in found.models.values())
    table(["model", "aliases", "source", "runs on", "replicas>", "$/replica-hour>", "falls back to",
           *(["licence"] if licensed else [])],
          [(name, ", ".join(m.aliases), m.source, found.variant(name), f"{m.replicas.min}–{m.replicas.max}",
            "–".join(dollars(p) for p in sorted(set(price[name]))), ", ".join(m.fallback),
            *([m.licence.name + (" (gated)" if m.licence.gated else "") if m.licence else ""] if licensed else []))
           for name, m in found.models.items()])
    console.print()
    if adapters(found):
        table(["adapter", "source", "for"],
              [(f"{name}:{adapter}", spec.source, spec.description)
               for name, m in found.models.items() for adapter, spec in m.adapters.items()])
        console.print()
    if found.routes:
        table(["route", "aliases", "spread over", "for"],
              [(name, ", ".join(r.aliases), spread(r.variants), r.description) for name, r in found.routes.items()])
        console.print()
    if found.presets:
        table(["preset", "digest", "model", "tools", "for"],
              [(f"{name}@{version}" + (" (current)" if version == spec.served else ""), said.digest, said.model,
                ", ".join(tool.name for tool in said.tools), spec.description)
               for name, spec in found.presets.items() for version, said in spec.versions.items()])
        console.print()
    table(["model", "compared with", "as", "$/Mtok in>", "cached>", "out>", "tokens there>"],
          [(name, to.name, to.role.replace("_", " "), f"{float(to.input * 1_000_000):.6g}",
            f"{float(to.cached_input * 1_000_000):.6g}", f"{float(to.output * 1_000_000):.6g}", f"×{to.token_ratio:f}")
           for name in found.models for to in comparisons(found, name, book)])
    console.print(f"[dim]prices per token of ours; price book {book.version}: {book.origin}[/]", highlight=False,
                  soft_wrap=True)


def env(json: Json = False) -> None:
    """Print the settings of the environment, secrets masked."""
    own = settings()
    if json:
        as_json(own.shown())
        return
    table(["setting", "value", "meaning"],
          [(name, value or "–", own.MEANING[name.removeprefix("FLOTILLA_").lower()])
           for name, value in own.shown().items()])
