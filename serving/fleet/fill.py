"""One line in a fleet file instead of twenty: what a model leaves out comes from its catalogue entry.

`qwen: {catalogue: qwen/qwen3-8b}` is filled in before the file is checked: source and revision, architecture, parsers,
comparators, and the entry's variant for the accelerator; whatever the file says itself wins. Without `accelerator` it
is the cheapest of the fleet's profiles that the entry has a variant for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from serving.errors import ConfigError
from serving.fleet.accelerator_book import AcceleratorBook
from serving.fleet.accelerators import AcceleratorProfile, price_range, resolve
from serving.fleet.config import wrong_reference, wrong_value
from serving.fleet.models.entries import Catalogue, Entry, Variant

FOLDER = "../catalogue"
SLO = {"ttft_ms": 2000.0, "tpot_ms": 50.0}  # an assumption: what a chat feels fluent with


def fill(fleet: object, catalogue: Callable[[str], Catalogue] | None, book: AcceleratorBook | None) -> object:
    """The raw fleet file with its models filled in. What is no mapping is left to the checks that follow.

    `catalogue`: gives the catalogue in a folder, as the fleet file names it; None: there is none.
    Raises: PydanticCustomError for an entry or a variant that is not there.
    """
    if not isinstance(fleet, Mapping) or not isinstance(fleet.get("models"), Mapping):
        return fleet
    raw = fleet.get("accelerators")
    profiles = _profiles(raw if isinstance(raw, Mapping) else {})
    folder = fleet.get("catalogue", FOLDER)
    models = {name: _filled(str(name), model, catalogue and (lambda: catalogue(str(folder))), profiles, book)
              if isinstance(model, Mapping) and isinstance(model.get("catalogue"), str) else model
              for name, model in fleet["models"].items()}
    return {**fleet, "models": models}


def _filled(name: str, model: Mapping[str, Any], catalogue: Callable[[], Catalogue] | None,
            profiles: Mapping[str, AcceleratorProfile], book: AcceleratorBook | None) -> dict[str, Any]:
    at = ("models", name, "catalogue")
    if catalogue is None:
        raise wrong_value(at, "there is no catalogue to find it in; name its folder in the fleet file's catalogue")
    try:
        entry = catalogue().named(model["catalogue"])
    except ConfigError as error:
        raise wrong_value(at, str(error)) from None
    accelerator = model.get("accelerator")
    precision = model.get("precision")
    if precision is not None and precision not in entry.weights:
        raise wrong_reference(("models", name, "precision"), str(precision), entry.weights)
    if accelerator is None:
        accelerator = _cheapest(name, entry, precision, profiles, book)
    profile = profiles.get(accelerator)
    variant = best(entry, profile, precision, model.get("engine")) if profile else None
    return _merge(model, entry, accelerator, variant, precision)


def _merge(model: Mapping[str, Any], entry: Entry, accelerator: str, variant: Variant | None,
           precision: str | None) -> dict[str, Any]:
    weights = entry.weights[variant.precision if variant else precision or next(iter(entry.weights))]
    own = model.get("engine")
    filled: dict[str, Any] = {
        "source": weights.source, "architecture": entry.architecture, "accelerator": accelerator, "slo": dict(SLO),
        "licence": entry.licence.model_dump(), **({"comparators": _comparators(entry)} if entry.comparators else {})}
    if weights.revision and "source" not in model:
        filled["revision"] = weights.revision
    engine = _engine(entry, variant) if own is None or isinstance(own, Mapping) else own
    if isinstance(own, Mapping):
        inner = {key: {**engine.get(key, {}), **own[key]} for key in ("args", "env")
                 if isinstance(own.get(key), Mapping)}
        engine = {**engine, **own, **inner}
    return {**filled, **model, "engine": engine, "catalogue": entry.name}


def _engine(entry: Entry, variant: Variant | None) -> dict[str, Any]:
    engine: dict[str, Any] = {"args": {**entry.args, **(variant.args if variant else {})}}
    if entry.tool_call_parser:
        engine["tool_call_parser"] = entry.tool_call_parser
    if entry.reasoning_parser:
        engine["reasoning_parser"] = entry.reasoning_parser
    if variant is None:
        return engine
    engine |= {"max_model_len": variant.max_model_len, "max_num_seqs": variant.max_num_seqs,
               "tensor_parallel_size": variant.tensor_parallel, "env": dict(variant.env)}
    if variant.pipeline_parallel > 1:
        engine["pipeline_parallel_size"] = variant.pipeline_parallel
    if variant.data_parallel > 1:
        engine["args"]["data_parallel_size"] = variant.data_parallel
    if variant.expert_parallel:
        engine["args"]["enable_expert_parallel"] = True
    return engine


def _comparators(entry: Entry) -> list[dict[str, Any]]:
    return [c.model_dump(exclude_defaults=True) for c in entry.comparators]


def best(entry: Entry, profile: AcceleratorProfile, precision: str | None = None,
         engine: object = None) -> Variant | None:
    """The entry's first variant for a profile, of the precision and the number of devices asked for, if any are."""
    found = [v for v in entry.variants if v.accelerator == profile.accelerator
             and precision in (None, v.precision)]
    wanted = engine.get("tensor_parallel_size") if isinstance(engine, Mapping) else None
    same = [v for v in found if v.tensor_parallel == wanted]
    return next(iter(same or found), None)


def _cheapest(name: str, entry: Entry, precision: str | None, profiles: Mapping[str, AcceleratorProfile],
              book: AcceleratorBook | None) -> str:
    found = [(profile, variant) for profile, of in profiles.items() if (variant := best(entry, of, precision))]
    if not found:
        there = ", ".join(dict.fromkeys(v.name for v in entry.variants))
        own = ", ".join(f"{p} ({of.accelerator or of.kind})" for p, of in profiles.items()) or "none"
        raise wrong_value(("models", name, "catalogue"),
                          f"the entry {entry.name} has variants for {there}, and none of the fleet's accelerators is "
                          f"one: {own}; add a profile, or say accelerator yourself")
    return min(found, key=lambda pair: _price(profiles[pair[0]], book) * pair[1].count)[0]


def _price(profile: AcceleratorProfile, book: AcceleratorBook | None) -> int:
    """Nano-USD per device and hour; 0 where it cannot be known yet, and then the file's order decides."""
    try:
        return price_range(profile, book)[0] if profile.needs_labels else resolve(profile, book).changes[-1][1]
    except ConfigError:
        return 0


def _profiles(raw: Mapping[str, Any]) -> dict[str, AcceleratorProfile]:
    found = {}
    for name, value in raw.items():
        try:
            found[str(name)] = AcceleratorProfile.model_validate(value)
        except ValidationError:  # told where the file is checked as a whole
            continue
    return found
