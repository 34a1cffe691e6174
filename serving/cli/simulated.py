"""What the commands that simulate begin with: a fleet's models as services, and a trace's requests.

The traffic comes from the load tests' own readers, run as a child (`loadtests.schedule`): serving never imports them.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.cli.output import stderr
from serving.errors import ConfigError
from serving.fleet.accelerators import AcceleratorProfile, price_range
from serving.fleet.autoscaling import Policy, Variant
from serving.fleet.autoscaling.capacity import impossible
from serving.fleet.autoscaling.deciding import Rule
from serving.fleet.autoscaling.hpa import Hpa
from serving.fleet.autoscaling.queue import Queue
from serving.fleet.autoscaling.ray_default import RayDefault
from serving.fleet.autoscaling.slo import SloRule
from serving.fleet.autoscaling.spec import ScalingSpec
from serving.fleet.catalogue import Fleet
from serving.fleet.config import read
from serving.fleet.models import entries
from serving.fleet.money import nanousd

if TYPE_CHECKING:
    from serving.simulator.profile import EngineProfile, Profiles
    from serving.simulator.simulate import Purse
    from serving.simulator.traffic import Traffic
    from serving.simulator.world import Service

RULES = ("ours", "ray-default", "queue", "hpa")


def rule_of(name: str, target: float, said: ScalingSpec) -> Rule:
    """The rule of a name. target: 0 leaves the rule's own. said: of the fleet file, for ours. Raises: ConfigError."""
    if name not in RULES:
        raise ConfigError(f"--policy {name!r}: choose one of {', '.join(RULES)}")
    if name == "ours":
        return SloRule(**said.rule)
    if name == "ray-default":
        return RayDefault(target) if target else RayDefault()
    if name == "queue":
        return Queue(target) if target else Queue()
    return Hpa(target) if target else Hpa()


def profile_of(found: Fleet, path: Path, name: str, known: Profiles | None) -> EngineProfile:
    """The engine profile of a fleet's model: the file's, else by the roofline of its catalogue entry.

    `path`: of the fleet file. Raises: ConfigError where neither is there.
    """
    from serving.simulator import byroofline

    if known is not None and known.has(name, found.variant(name)):
        return known.of(name, found.variant(name))
    spec = found.models[name]
    entry = found.entry(name) or entries.load(path.parent / found.catalogue).with_source(spec.source)
    if entry is None or spec.small_family is not None:
        if known is not None:
            return known.of(name, found.variant(name))  # says which there are
        raise ConfigError(f"models.{name}: {spec.source} is no checkpoint of the catalogue, so there is no roofline of "
                          "it; give --profiles with its engine profile (`flotilla profile fit REPORT` makes one)")
    return byroofline.profile_of(name, spec, found.accelerators[spec.accelerator], entry)


def read_profiles(path: Path | None) -> Profiles | None:
    """The engine profiles of a file, if one is named. Raises: ConfigError."""
    from serving.simulator.profile import Profiles

    if path is None:
        return None
    if not path.is_file():
        raise ConfigError(f"--profiles {path}: there is no such file")
    return read(path, Profiles)


def service(found: Fleet, name: str, profiles: Mapping[str, EngineProfile], rule: Rule, node_s: float) -> Service:
    """A fleet's model, or the models of a route as variants of one, as the simulator wants it.

    Raises: ConfigError for promises that no policy can keep.
    """
    from serving.simulator.world import Service

    members = found.answering(name)
    specs = [found.models[member] for member in members]
    variants = tuple(_variant(found, member, profiles[member], node_s) for member in members)
    seats = tuple(spec.overload.max_in_flight or max(4, math.ceil(profiles[member].max_num_seqs * 1.25))
                  for member, spec in zip(members, specs, strict=True))
    slo = min((spec.slo for spec in specs), key=lambda promised: (promised.ttft_ms, promised.tpot_ms))
    policy = Policy(rule, variants, slo)
    if isinstance(rule, SloRule):  # what others do is compared as it is without the fleet file's bounds
        said = specs[0].scaling
        policy = replace(policy, zero_after_s=said.zero_after_s, spares=said.spares, hours=said.schedule)
    return Service(name, policy,
                   tuple(profiles[member] for member in members), seats, tuple(spec.devices for spec in specs),
                   tuple(_is_spot(found.accelerators[spec.accelerator]) for spec in specs),
                   all(spec.routing == "prefix" for spec in specs), min(spec.overload.max_wait_s for spec in specs))


def _variant(found: Fleet, name: str, profile: EngineProfile, node_s: float) -> Variant:
    """What a replica of a model is to a policy. A price that depends on the node counts at its highest."""
    spec = found.models[name]
    accelerator = found.accelerators[spec.accelerator]
    price = (price_range(accelerator, found.accelerator_book)[1] * spec.devices if accelerator.needs_labels
             else found.price_nanousd_per_hour(name))
    variant = Variant(found.variant(name), profile.steps, profile.kv_tokens, profile.max_num_seqs,
                      profile.max_batched_tokens, price, spec.replicas.min, spec.replicas.max, profile.start_s, node_s)
    for of, promised in {"": spec.slo, **{f".tenants.{tenant}": own for tenant, own in spec.slo.own().items()}}.items():
        if text := impossible(variant, promised):
            raise ConfigError(f"models.{name}.slo{of}: {text}")
    return variant


def _is_spot(accelerator: AcceleratorProfile) -> bool:
    return accelerator.price is not None and accelerator.price.capacity == "spot"


def purses(found: Fleet, names: Iterable[str]) -> tuple[dict[str, Purse], int | None]:
    """What models and the whole fleet may cost, as the fleet file says: caps in nano-USD per hour."""
    from serving.simulator.simulate import Purse

    def cap(usd_per_hour: Any) -> int | None:
        return None if usd_per_hour is None else nanousd(usd_per_hour)

    fleet_cap, kept = cap(found.scaling.max_usd_per_hour), {}
    for name in names:
        said = found.models[found.answering(name)[0]].scaling
        kept[name] = Purse(fleet_cap, cap(said.max_usd_per_hour), said.priority, said.value_usd_per_hour)
    return kept, fleet_cap


def compile_once() -> None:
    """Say so where the simulator's loops must be compiled first."""
    from serving.simulator import compiled

    if not compiled.kept():
        stderr.print("… compiling the simulator, once", highlight=False)


def rows_of(trace: Path, seed: int, length_s: float | None = None) -> list[dict[str, Any]]:
    """The requests of a scenario or a trace, as `loadtests.schedule` tells them. Raises: ConfigError."""
    command = [sys.executable, "-m", "loadtests.schedule", str(trace), "--seed", str(seed)]
    command += ["--length", str(length_s)] if length_s else []
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise ConfigError(said.stderr.strip().removeprefix("loadtests: ") or f"{trace}: cannot be read")
    return [json.loads(line) for line in said.stdout.splitlines()]


def traffic_of(trace: Path, found: Fleet, model: str | None, seed: int) -> dict[str, Traffic]:
    """A trace's traffic by model or route. `model`: of rows that name none. Raises: ConfigError."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    names = found.callable_names()
    for row in rows_of(trace, seed):
        asked = row["model"] or model or (next(iter(found.models)) if len(found.models) == 1 else "")
        name = names.get(asked, asked).partition(":")[0]
        if name not in found.models and name not in found.routes:
            raise ConfigError(f"{trace}: a request for {asked or 'no model'!r}, which is no model of {found.name}; say "
                              f"--model: {', '.join((*found.models, *found.routes))}")
        rows[name].append(row)
    length = max((row["at_s"] for those in rows.values() for row in those), default=0.0) + 1.0
    return {name: as_traffic(those, length) for name, those in rows.items()}


def as_traffic(rows: list[dict[str, Any]], length_s: float) -> Traffic:
    """Rows as arrays."""
    from serving.simulator.traffic import traffic

    return traffic([r["at_s"] for r in rows], [r["input_tokens"] for r in rows], [r["output_tokens"] for r in rows],
                   length_s,
                   [r["session"] or zlib.crc32(repr(r["blocks"][:1]).encode()) + n for n, r in enumerate(rows)],
                   [r["blocks"] for r in rows], max(1, rows[0]["block_tokens"]) if rows else 1)
