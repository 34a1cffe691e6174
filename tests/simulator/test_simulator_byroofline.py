"""Engine profiles by data sheets: they say what they are, and stay near the roofline that they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.fleet import sizing
from serving.fleet.catalogue import Fleet, load
from serving.fleet.hardware import spec_of
from serving.fleet.models import entries
from serving.fleet.models.shape import model_shape
from serving.fleet.roofline import decode_seconds, prefill_seconds
from serving.simulator.byroofline import profile_of

OPEN = load(Path("deployments/fleets/open-models.yaml"))


def profile(name: str, fleet: Fleet = OPEN):
    spec = fleet.models[name]
    return profile_of(name, spec, fleet.accelerators[spec.accelerator], fleet.entry(name))


@pytest.mark.parametrize("name", [n for n in OPEN.models if n not in ("embedding", "reranker")])
def test_a_step_takes_one_to_two_times_the_rooflines(name: str) -> None:
    found, spec = profile(name), OPEN.models[name]
    accelerator = OPEN.accelerators[spec.accelerator]
    of = sizing.sized(spec, accelerator, OPEN.entry(name))
    shape = model_shape(name, of.entry.size, of.weights.format)
    device, devices, m = spec_of(accelerator.accelerator), of.split.devices, found.steps
    assert found.origin == "roofline" and "data sheet" in found.source
    # window layers and states count at full size in an affine model: hence up to a little more than twice
    pairs = 2_048 * 2_047 / 2
    prompt = m.fixed + m.token * 2_048 + m.attention * pairs
    assert 0.9 < prompt / prefill_seconds(shape, device, 2_048, 0, devices) < 2.2
    batch = 32 * (m.token + (m.attention + m.cache) * 2_000) + m.fixed
    assert 0.9 < batch / decode_seconds(shape, device, 32, 2_000, devices) < 2.2


def test_the_room_is_the_one_that_fit_tells() -> None:
    found, spec = profile("llama"), OPEN.models["llama"]
    of = sizing.sized(spec, OPEN.accelerators[spec.accelerator], OPEN.entry("llama"))
    assert found.kv_tokens == pytest.approx(of.fit.left / of.fit.token_bytes, rel=0.01)
    assert found.max_num_seqs == spec.engine.max_num_seqs and found.longest <= spec.engine.max_model_len
    assert found.start_s > 60 + of.fit.weights / 1e9 - 1


def test_what_has_no_tokens_or_no_data_sheet_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="models.embedding: .* answers with vectors"):
        profile("embedding")
    spec = OPEN.models["llama"]
    odd = OPEN.accelerators["h200"].model_copy(update={"type": "TPU-V5"})
    with pytest.raises(ConfigError, match="no data sheet of TPU-V5 .* H200"):
        profile_of("llama", spec, odd, OPEN.entry("llama"))
    small = OPEN.accelerators["l40s"]
    with pytest.raises(ConfigError, match="does not fit"):
        profile_of("llama", spec, small, OPEN.entry("llama"))


def test_an_entry_is_found_by_its_checkpoint() -> None:
    catalogue = entries.load(Path("deployments/catalogue"))
    assert catalogue.with_source("Qwen/Qwen3-8B").name == "qwen/qwen3-8b"
    assert catalogue.with_source("Qwen/Qwen3-8") is None
