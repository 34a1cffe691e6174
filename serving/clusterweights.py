"""The weights of a fleet's models: where they are, and bringing them there before an engine asks.

`prepare` is what one machine does before it starts Ray. On a cluster `python -m serving.clusterweights` runs in an init
container and in the pre-download Job: whoever is first downloads, the others wait for it, and no readiness probe runs
meanwhile. May not happen in here: loading weights.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving import checkpoints
from serving.errors import FlotillaError, StartFailed
from serving.fleet.catalogue import Fleet
from serving.weights import buckets


@dataclass(frozen=True)
class Sources:
    """Where the weights are: hub id, path or bucket by model, and by adapter of a model."""

    models: dict[str, str]
    adapters: dict[str, dict[str, str]]


def prepare(fleet: Fleet, root: Path) -> Sources:
    """Make the small checkpoints and adapters that the fleet names, below `root`, and say where all weights are."""
    found = Sources({}, {})
    for name, spec in fleet.models.items():
        family = spec.small_family
        source = str(checkpoints.make(family, root)) if family else buckets.address_for(spec.source, spec.engine.args)
        found.models[name] = source
        found.adapters[name] = {
            adapter: str(checkpoints.make_adapter(Path(source), family or "", adapter, root))
            if told.source.startswith("small:") else told.source
            for adapter, told in spec.adapters.items()
        }
    return found


def hub_ids(fleet: Fleet) -> dict[str, str | None]:
    """What a hub has to be asked for: id of each model and adapter to its revision. Paths and URLs are not among
    them."""
    wanted: dict[str, str | None] = {}
    for spec in fleet.models.values():
        for source, revision in ((spec.source, spec.revision), *((a.source, None) for a in spec.adapters.values())):
            if not source.startswith(("small:", "/", ".", "s3://", "gs://")) and source.count("/") == 1:
                wanted[source] = revision
    return wanted


def download(wanted: dict[str, str | None], cache: Path, fetch: Callable[[str, str | None], object],
             say: Callable[[str], None]) -> None:
    """Bring each hub id into the cache, one process of all that share it at a time. Raises: StartFailed."""
    cache.mkdir(parents=True, exist_ok=True)
    for source, revision in wanted.items():
        lock = cache / f".{source.replace('/', '--')}.lock"
        with _alone(lock, lambda of=source: say(f"{of}: another pod brings it")):
            began = time.monotonic()
            try:
                fetch(source, revision)
            except Exception as error:
                raise StartFailed(f"the weights of {source} could not be downloaded: {error}") from error
            say(f"{source}: there ({time.monotonic() - began:.0f} s)")


@contextmanager
def _alone(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_hub(source: str, revision: str | None) -> object:
    from huggingface_hub import snapshot_download

    return snapshot_download(source, revision=revision)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when weights cannot be had, 2 for a wrong fleet file."""
    from serving.plan import Changes, fleet

    parser = argparse.ArgumentParser(prog="python -m serving.clusterweights",
                                     description="Brings a fleet's weights here.")
    parser.add_argument("fleet", type=Path, help="the fleet file")
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR", help="folder of small checkpoints")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of the hub's files (HF_HOME); left out: do "
                                                                  "not download, the engine will")
    parser.add_argument("--accelerator", action="append", metavar="PROFILE", help="only models on this profile; may be "
                                                                                  "repeated. Left out: all")
    asked = parser.parse_args(arguments)
    try:
        found = fleet(asked.fleet, Changes({}))
        if asked.accelerator:
            mine = {n: m for n, m in found.models.items() if m.accelerator in asked.accelerator}
            found = found.model_copy(update={"models": mine})
        prepare(found, asked.checkpoints)
        if asked.cache:
            download(hub_ids(found), asked.cache, _from_hub, lambda line: print(line, flush=True))
    except FlotillaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, StartFailed) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
