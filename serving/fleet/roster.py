"""Who may use the fleet: the tenants as they are now, from the ledger or, where that has none, from the fleet file.

Gateways share one roster; whoever reads the ledger replaces its content as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from serving.fleet.specs import TenantSpec


class Roster(Mapping[str, TenantSpec]):
    """Tenants by name. `version` changes with its content."""

    def __init__(self, tenants: Mapping[str, TenantSpec]) -> None:
        self._tenants = dict(tenants)
        self.version = 0

    def __getitem__(self, name: str) -> TenantSpec:
        return self._tenants[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tenants)

    def __len__(self) -> int:
        return len(self._tenants)

    def replace(self, tenants: Mapping[str, TenantSpec]) -> None:
        """These are the tenants now."""
        if tenants != self._tenants:
            self._tenants = dict(tenants)
            self.version += 1

    @property
    def weights(self) -> RosterWeights:
        """Tenants' shares, as they are when asked for."""
        return RosterWeights(self)


class RosterWeights:
    """A `fleet.admission.Weights` over a roster."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def get(self, key: str, default: float, /) -> float:
        """A tenant's share, or the default for one that is not there."""
        found = self._roster.get(key)
        return found.weight if found is not None else default
