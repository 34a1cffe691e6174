"""Engine profiles from data sheets, for models of the catalogue that no one has measured yet.

Steps are `serving.fleet.roofline`'s, room for keys and values is `serving.fleet.models.fit`'s, both estimates; the time
of a start is an assumption. What was measured replaces all of it: such a profile says of itself that it is a roofline.
"""

from __future__ import annotations

from serving.errors import ConfigError
from serving.fleet import sizing
from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.hardware import SPECS, spec_of
from serving.fleet.models.entries import Entry
from serving.fleet.models.fit import GIB
from serving.fleet.models.shape import model_shape
from serving.fleet.modelspec import ModelSpec
from serving.fleet.roofline import TYPICAL, step_model
from serving.simulator.profile import EngineProfile

# assumptions: an engine's imports, compilation and graphs, and how fast a device gets its weights from a local disk
START_S, LOADED_PER_S = 60.0, 1e9
_CONTEXT = 4_096  # tokens of a request by which the room of windows and states is counted


def profile_of(name: str, model: ModelSpec, accelerator: AcceleratorProfile, entry: Entry) -> EngineProfile:
    """The profile of a fleet's model on its devices, by data sheets.

    Raises: ConfigError for what answers with no tokens, a device without a data sheet here, and a model that does not
    fit.
    """
    if entry.pooling:
        raise ConfigError(f"models.{name}: {entry.title} answers with vectors, not with tokens; there is nothing to "
                          "simulate")
    device = spec_of(accelerator.accelerator)
    if device is None:
        raise ConfigError(f"accelerators.{model.accelerator}: no data sheet of {accelerator.accelerator or 'it'} here, "
                          f"so {name} has no roofline; there are {', '.join(SPECS)}. Give it an engine profile")
    of = sizing.sized(model, accelerator, entry)
    if of.fit.verdict == "no":
        raise ConfigError(f"models.{name}: {sizing.trouble(model, accelerator, entry)}")
    engine, data = model.engine, of.split.data
    shape = model_shape(entry.name, entry.size, of.weights.format, of.demand.element_bytes)
    steps = step_model(shape, device, of.split.devices, min(32, engine.max_num_seqs))
    context = min(_CONTEXT, engine.max_model_len)
    room = of.fit.blocks.concurrency(of.fit.left, context) * context * data
    start_s = START_S + of.fit.weights / LOADED_PER_S
    return EngineProfile(
        fixed_s=steps.fixed, token_s=steps.token, attention_s=steps.attention, cache_s=steps.cache,
        kv_tokens=int(room), block_tokens=of.fit.blocks.block_size, max_num_seqs=engine.max_num_seqs * data,
        max_batched_tokens=of.demand.batched * data, max_model_len=engine.max_model_len, start_s=round(start_s),
        origin="roofline",
        source=f"{entry.name} on {device.name}{f' x{of.split.devices}' if of.split.devices > 1 else ''} by its data "
               f"sheet, {TYPICAL.compute:.0%} of the FLOPs and {TYPICAL.memory:.0%} of the bandwidth; assumed start: "
               f"{START_S:g} s and {of.fit.weights / GIB:.0f} GiB of weights per device at {LOADED_PER_S / 1e9:g} GB/s")
