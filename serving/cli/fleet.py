"""`flotilla check`, `schema`, `models`, `env`: what the files and the environment say."""

from __future__ import annotations

from pathlib import Path

from serving.cli.output import as_json, console, money, settings, table
from serving.cli.run import FleetFile, Json
from serving.fleet.catalogue import Fleet, price_book
from serving.fleet.money import usd
from serving.plan import Changes, fleet


def load(file: Path | None) -> tuple[Path, Fleet]:
    """The fleet file asked for, or the settings' one. Raises: ConfigError."""
    path = file or settings().fleet
    return path, fleet(path, Changes({}))


def check(file: FleetFile = None, json: Json = False) -> None:
    """Check a fleet file. Exits with 2 and names key, line and nearest right name when something is wrong."""
    path, found = load(file)
    if json:
        as_json({"ok": True, "fleet": found.name, "models": list(found.models), "routes": list(found.routes),
                 "adapters": adapters(found)})
    else:
        hourly = sum(found.price_nanousd_per_hour(n) * m.replicas.min for n, m in found.models.items())
        parts = [f"{len(things)} {kind}{'s' * (len(things) != 1)}" for kind, things in [
            ("model", found.models), ("adapter", adapters(found)), ("route", found.routes)] if things]
        console.print(f"[green]ok[/]  {path}: fleet {found.name}, {', '.join(parts)}, "
                      f"{money(usd(hourly))} per hour at minimum", highlight=False, soft_wrap=True)


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
    """List the models of a fleet file with their adapters and routes, what they cost and are compared with."""
    path, found = load(file)
    book = price_book(found, path)
    if json:
        as_json({name: m.model_dump(mode="json") | {
            "price_usd_per_hour": usd(found.price_nanousd_per_hour(name)),
            "routes": {route: r.variants[name] for route, r in found.routes.items() if name in r.variants},
        } for name, m in found.models.items()})
        return
    table(["model", "aliases", "source", "accelerator", "replicas>", "$/replica-hour>", "falls back to"],
          [(name, ", ".join(m.aliases), m.source, m.accelerator, f"{m.replicas.min}–{m.replicas.max}",
            money(usd(found.price_nanousd_per_hour(name))), ", ".join(m.fallback)) for name, m in found.models.items()])
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
    table(["model", "compared with", "as", "$/Mtok in>", "$/Mtok out>"],
          [(name, c.price, c.role.replace("_", " "), f"{book[c.price].input * 1e6:g}",
            f"{book[c.price].output * 1e6:g}")
           for name, m in found.models.items() for c in m.comparators])


def env(json: Json = False) -> None:
    """Print the settings of the environment, secrets masked."""
    own = settings()
    if json:
        as_json(own.shown())
        return
    table(["setting", "value", "meaning"],
          [(name, value or "–", own.MEANING[name.removeprefix("FLOTILLA_").lower()])
           for name, value in own.shown().items()])
