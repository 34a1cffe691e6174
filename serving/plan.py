"""What a run is to bring up, as a value that travels between processes. Light: the guard reads it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.fleet.catalogue import Fleet


@dataclass(frozen=True)
class Changes:
    """What a command line changes of a fleet file. None leaves a value as it is."""

    sources: dict[str, str]
    port: int | None = None
    metrics_port: int | None = None
    gateway_replicas: int | None = None


@dataclass(frozen=True)
class Plan:
    """What to bring up. Paths are absolute."""

    run: str
    state_dir: str
    work_dir: str
    fleet_file: str
    fleet_name: str
    api: str
    metrics: str
    changes: Changes

    def to_json(self) -> str:
        """As text, for another process's standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "changes": Changes(**raw["changes"])})

    @property
    def logs(self) -> str:
        """Folder of the run's logs."""
        return str(Path(self.state_dir) / "logs" / self.run)


def fleet(file: Path, changes: Changes) -> Fleet:
    """The fleet of a file with a command line's changes. Raises: ConfigError."""
    from serving import checkpoints
    from serving.errors import ConfigError, nearest
    from serving.fleet import catalogue

    found = catalogue.load(file, checkpoints.families(), checkpoints.ADAPTERS)
    for name, source in changes.sources.items():
        if name not in found.models:
            near = nearest(name, found.models)
            hint = f"did you mean {near!r}?" if near else f"models: {', '.join(found.models)}"
            raise ConfigError(f"the fleet {found.name!r} has no model {name!r}; {hint}")
        if (small := found.models[name].small_adapters) and source != found.models[name].source:
            raise ConfigError(f"the model {name!r} cannot be {source!r}: the fleet file gives it adapters made for "
                              f"{found.models[name].source!r} ({', '.join(small)}); remove them there")
    models = {
        name: spec.model_copy(update={"source": changes.sources[name], "revision": None})
        if name in changes.sources else spec
        for name, spec in found.models.items()
    }
    gateway = {"port": changes.port, "replicas": changes.gateway_replicas}
    return found.model_copy(update={
        "models": models,
        "gateway": found.gateway.model_copy(update={k: v for k, v in gateway.items() if v is not None}),
        "metrics": found.metrics.model_copy(update={"port": changes.metrics_port} if changes.metrics_port else {}),
    })
