"""The admin API's routes for LoRA adapters: what `flotilla adapters` does, over HTTP."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from serving import adapting
from serving.admin.models import Body, Listed
from serving.fleet.catalogue import Fleet
from serving.ledger import adapters as store
from serving.ledger import tenants
from serving.ledger.store import Ledger


@dataclass(frozen=True)
class Place:
    """What adapters are checked against. `checkpoints_dir`: where small ones are made."""

    fleet: Fleet
    checkpoints_dir: Path


class NewAdapter(Body):
    """An adapter to be added."""

    model: str = Field(description="Model of the fleet file, or an alias of it.")
    name: str = Field(description="Callers ask for model:name.")
    source: str = Field(description="Its folder where the fleet runs, a hub id (org/name), or small:lora.")
    description: str = ""
    tenants: list[str] | None = Field(None, description="Who may use it; null: whoever may use its model.")
    replace: bool = Field(False, description="Put it in the place of the one that has its name.")


class Adapter(Listed):
    """An adapter that was added."""

    adapter_id: str
    model: str
    name: str
    source: str
    rank: int
    description: str
    tenants: list[str] | None
    added_at: float
    removed_at: float | None


class Adapters(Listed):
    """All adapters that were added and are still there."""

    data: list[Adapter]


def routes(ledger: Ledger, place: Place, actor: Any, refused: dict[int | str, dict[str, Any]],
           clock: Callable[[], float]) -> APIRouter:
    """The routes. `actor`: the annotation by which a route knows who asks. `refused`: answers that any of them has."""
    router = APIRouter(prefix="/admin/v1/adapters")
    Actor = Annotated[str, actor]  # read when a route is made, so annotations in this file are no texts

    @router.get("", responses=refused)
    def list_adapters(who: Actor) -> Adapters:
        """List the adapters that were added. Those of the fleet file stand there."""
        return Adapters(data=[_shown(found) for found in store.present(ledger)])

    @router.post("", status_code=201, responses=refused)
    def add_adapter(who: Actor, new: NewAdapter) -> Adapter:
        """Check an adapter and add it. Gateways know it within seconds; replicas load it when it is first asked for."""
        wanted = adapting.Wanted(new.model, new.name, new.source, new.description,
                                 tuple(new.tenants) if new.tenants else None, new.replace)
        there = tenants.all_tenants(ledger) or place.fleet.tenants
        return _shown(adapting.add(ledger, place.fleet, wanted, place.checkpoints_dir, clock(), there, who))

    @router.delete("/{model}/{name}", responses=refused)
    def remove_adapter(who: Actor, model: str, name: str) -> Adapter:
        """Remove an adapter that was added. Gateways refuse it within seconds; requests under way end."""
        return _shown(adapting.remove(ledger, place.fleet, model, name, clock(), who))

    return router


def _shown(found: Any) -> Adapter:
    return Adapter.model_validate(asdict(found))
