"""Where a model's weights are, and whether they can be loaded: asked and answered before a replica is started.

A replica that dies of a missing repository, a gated licence, a damaged file or a full disk does so after a minute and
in a traceback; here each is one sentence at once. May not happen in here: Ray, vLLM, torch, processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.weights import architectures, buckets, folders
from serving.weights.hub import Hub, gibibytes
from serving.weights.sources import Kind, kind_of

__all__ = ["Hub", "Kind", "Wanted", "kind_of", "prepare"]


@dataclass(frozen=True)
class Wanted:
    """A model's weights as the fleet file asks for them.

    `architecture`: what its config.json must name; None: whatever vLLM can run. `engine_args`: vLLM's arguments, of
    which `hf_overrides`, `trust_remote_code` and `load_format` matter here.
    """

    source: str
    revision: str | None = None
    architecture: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)


def prepare(wanted: Wanted, hub: Hub, say: Callable[[str], None] = lambda note: None) -> str:
    """What an engine is to load: a folder of this machine, or the bucket's address, which it reads itself.

    A hub's repository is downloaded into the hub's cache first, each file held to its published checksum. `say` is
    told what takes long.
    Raises: WeightsError, one of its kinds, with one sentence that says what is wrong and what to do.
    """
    kind = kind_of(wanted.source)
    if kind is Kind.BUCKET:
        if streamer := buckets.streamer(wanted.engine_args):
            buckets.require_streamer(streamer, wanted.source)
        bucket = buckets.look(wanted.source)
        _fits_vllm(bucket.config, wanted)
        if not streamer:
            hub.require_space(bucket.size, wanted.source)
        return buckets.address_for(wanted.source, wanted.engine_args)
    if kind is Kind.HUB:
        repository = hub.look(wanted.source, wanted.revision)
        _fits_vllm(repository.config, wanted)
        if repository.missing_bytes:
            say(f"fetching {wanted.source}, {gibibytes(repository.missing_bytes)}")
        folder = hub.fetch(repository)
    else:
        folder = Path(wanted.source).expanduser()
    found = folders.check(folder, wanted.source)
    if kind is Kind.FOLDER:
        _fits_vllm(found, wanted)
    return str(folder)


def _fits_vllm(config: Mapping[str, Any] | None, wanted: Wanted) -> None:
    """Raises: UnsupportedArchitecture. Without a config.json (other formats than Hugging Face's) vLLM has to say."""
    if config is None:
        return
    overrides = wanted.engine_args.get("hf_overrides") or {}
    architectures.require(
        config, wanted.source, wanted.architecture,
        overridden=overrides.get("architectures") if isinstance(overrides, Mapping) else None,
        remote_code=bool(wanted.engine_args.get("trust_remote_code")),
    )
