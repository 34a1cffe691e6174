"""Whether each model of a fleet fits the devices that the file gives it, and what would fit instead.

Only models whose size is known: those of the catalogue. Weights that stand in (`small:`) are never too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.hardware import SPECS, spec_of
from serving.fleet.models.choose import choices
from serving.fleet.models.entries import Entry, Weights
from serving.fleet.models.fit import GIB, Demand, Fit, default_batched, fit
from serving.fleet.models.shape import model_shape
from serving.fleet.models.weights import Split
from serving.fleet.modelspec import EngineSpec, ModelSpec
from serving.fleet.roofline import Efficiency, Rates, decode_seconds, prefill_seconds, rates

_PEAKS = Efficiency(compute=1.0, memory=1.0, link=1.0, step_s=0.0, message_s=0.0)  # what no engine goes beyond


@dataclass(frozen=True)
class Sized:
    """A model of the fleet on its devices."""

    fit: Fit
    entry: Entry
    weights: Weights
    split: Split
    demand: Demand


def sized(model: ModelSpec, profile: AcceleratorProfile, entry: Entry) -> Sized:
    """A fleet's model, measured by its catalogue entry."""
    weights = _weights(model, entry)
    split, demand = split_of(model.engine), demand_of(model.engine, profile, entry.pooling)
    found = fit(entry.size, weights.format, split, profile.memory_gib * GIB, demand, weights.loaded_bytes,
                profile.kind == "cpu")
    return Sized(found, entry, weights, split, demand)


def estimate(of: Sized, profile: AcceleratorProfile, requests: int, context: int) -> Rates | None:
    """Tokens per second by the roofline; None for an accelerator without a data sheet here."""
    device = spec_of(profile.accelerator)
    if device is None:
        return None
    shape = model_shape(of.entry.name, of.entry.size, of.weights.format, of.demand.element_bytes)
    return rates(shape, device, requests, context, of.split.devices)


def trouble(model: ModelSpec, profile: AcceleratorProfile, entry: Entry) -> str | None:
    """Why the model cannot run on those devices, in numbers, and the nearest that can; None when it fits."""
    of = sized(model, profile, entry)
    if of.fit.verdict != "no":
        return None
    return f"{entry.title} ({_weights_name(of)}) does not fit {_devices(model, profile)}: {_why(of)}; {_instead(of)}"


def tightness(model: ModelSpec, profile: AcceleratorProfile, entry: Entry) -> str | None:
    """A warning where the room is about as large as what is only estimated."""
    of = sized(model, profile, entry)
    if of.fit.verdict != "tight":
        return None
    return (f"{entry.title} leaves {of.fit.room / GIB:.1f} GiB on each device of {_devices(model, profile)} beyond one "
            f"request of {of.demand.context:,} tokens, and activations and overhead are estimates; try it first")


def impossible(model: ModelSpec, profile: AcceleratorProfile, entry: Entry) -> tuple[tuple[str, ...], str] | None:
    """A promise, to all or to one tenant, that a request alone on a replica could not be given, were every peak of the
    data sheet reached: (its place in the model's slo, why, in numbers). None where nothing that is known here speaks
    against them."""
    device = spec_of(profile.accelerator)
    if entry.pooling or device is None:
        return None
    of, slo = sized(model, profile, entry), model.slo
    shape = model_shape(entry.name, entry.size, of.weights.format, of.demand.element_bytes)
    least = {"ttft_ms": prefill_seconds(shape, device, 1, 0, of.split.devices, _PEAKS) * 1e3}
    if "speculative_config" not in model.engine.args:  # with it a step may give several tokens
        least["tpot_ms"] = decode_seconds(shape, device, 1, 1, of.split.devices, _PEAKS) * 1e3
    promises = [((), slo), *((("tenants", name), own) for name, own in slo.own().items())]
    for (at, said), (key, ms) in product(promises, least.items()):
        if ms > (promised := getattr(said, key)):
            return (*at, key), (f"{promised:g} ms is impossible: {entry.title} ({_weights_name(of)}) on "
                         f"{_devices(model, profile)} needs at least {ms:.3g} ms for a request of one token that has a "
                         "replica for itself, by the data sheet's peaks, however many replicas there are; promise "
                         "more, or give it faster or more devices")
    return None


def split_of(engine: EngineSpec) -> Split:
    """How a replica's devices share the model."""
    data = engine.args.get("data_parallel_size", 1)
    return Split(engine.tensor_parallel_size, engine.pipeline_parallel_size, data if isinstance(data, int) else 1,
                 bool(engine.args.get("enable_expert_parallel")))


def demand_of(engine: EngineSpec, profile: AcceleratorProfile, pooling: bool = False) -> Demand:
    """What the engine's arguments ask of a device's memory; those that are left out as vLLM chooses them."""
    args = engine.args
    return Demand(
        engine.max_model_len, engine.max_num_seqs,
        batched=_number(args.get("max_num_batched_tokens"), _batched(profile)),
        utilization=float(_number(args.get("gpu_memory_utilization"), 0.92)),
        cache_dtype=str(args.get("kv_cache_dtype", "auto")),
        cache_bytes=engine.kv_cache_mib * 1024**2 if engine.kv_cache_mib else None,
        block_size=int(_number(args.get("block_size"), 128 if profile.kind == "cpu" else 16)),
        prefix_caching=args.get("enable_prefix_caching") is not False,
        eager=bool(args.get("enforce_eager")), pooling=pooling)


def _batched(profile: AcceleratorProfile) -> int:
    return 2048 if profile.kind == "cpu" else default_batched(profile.accelerator, profile.memory_gib * GIB)


def _number(value: object, default: float) -> int:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return value if good else default  # type: ignore[return-value]


def _weights(model: ModelSpec, entry: Entry) -> Weights:
    """The entry's checkpoint that the model loads; another source counts as the precision asked for, or the first."""
    by_source = next((w for w in entry.weights.values() if w.source == model.source), None)
    return by_source or entry.weights[model.precision or next(iter(entry.weights))]


def _weights_name(of: Sized) -> str:
    return next(name for name, w in of.entry.weights.items() if w is of.weights)


def _devices(model: ModelSpec, profile: AcceleratorProfile) -> str:
    many = f" x{model.devices}" if model.devices > 1 else ""
    return f"{profile.accelerator or profile.kind}{many} of {profile.memory_gib:g} GiB"


def _why(of: Sized) -> str:
    found = of.fit
    if found.reason:
        return found.reason
    parts = (f"per device {found.weights / GIB:.1f} GiB of weights, {found.activations / GIB:.1f} for activations and "
             f"{found.overhead / GIB:.1f} overhead (both estimates)")
    if of.demand.cache_bytes is None:
        parts += f" out of {found.budget / GIB:.1f}"
    if found.left <= 0:
        return f"{parts} are {-found.left / GIB:.1f} GiB too much"
    return (f"{parts} leave {found.left / GIB:.1f} GiB for the KV cache, and one request of {of.demand.context:,} "
            f"tokens needs {found.needed / GIB:.1f}")


def _instead(of: Sized) -> str:
    ways = []
    if of.fit.longest >= 1024:
        ways.append(f"max_model_len of {of.fit.longest:,} would fit here")
    demand = Demand(of.demand.context, of.demand.requests, cache_dtype=of.demand.cache_dtype, pooling=of.demand.pooling)
    name = _weights_name(of)
    near = choices(of.entry.size, {name: of.entry.formats[name]}, SPECS.values(), None, demand, 1, 0.0)
    if near:
        # fewest devices first, then the smallest of them
        near.sort(key=lambda c: (c.split.devices, c.fit.memory))
        ways.append("it fits " + " or ".join(c.variant for c in near[:2]))
    smaller = [other for other in of.entry.weights if other != name]
    if smaller:
        ways.append(f"the catalogue also has {', '.join(smaller)} weights")
    return "; ".join(ways) or "nothing that is known here can hold it"
