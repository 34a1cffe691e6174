"""Model routing: which model answers a name. (Which replica answers is the gateway's matter.)"""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import UnknownModel
from serving.fleet.catalogue import Fleet


@dataclass(frozen=True)
class Routes:
    """Names and aliases to models."""

    names: dict[str, str]

    @classmethod
    def of(cls, fleet: Fleet) -> Routes:
        """The routes of a fleet: every model by its name and by each alias."""
        names = {name: name for name in fleet.models}
        names |= {alias: name for name, model in fleet.models.items() for alias in model.aliases}
        return cls(names)

    def model(self, name: str) -> str:
        """The model that answers `name`. Raises: UnknownModel, which names the ones there are."""
        try:
            return self.names[name]
        except KeyError:
            raise UnknownModel(name, self.names) from None
