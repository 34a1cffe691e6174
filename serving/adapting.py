"""Adapters added and removed while a fleet runs: checked, and written to the ledger, where gateways find them.

What `flotilla adapters` and the admin API share. May not happen in here: talking to a person, HTTP, engines.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from serving import adapters, checkpoints
from serving.errors import AdapterRefused, did_you_mean
from serving.fleet.adapters import Adapter
from serving.fleet.catalogue import Fleet, ModelSpec
from serving.fleet.specs import Name
from serving.ledger import adapters as store
from serving.ledger.store import Ledger

_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True)
class Wanted:
    """An adapter to be added. `model`: by name or alias. `source`: folder, hub id, or small:lora for one made here.
    `tenants`: who may use it; None: whoever may use its model. `replace`: what has the name now goes."""

    model: str
    name: str
    source: str
    description: str = ""
    tenants: tuple[str, ...] | None = None
    replace: bool = False
    trust_base: bool = False


def add(ledger: Ledger, fleet: Fleet, wanted: Wanted, checkpoints_dir: Path, now: float,
        tenants: Collection[str] | None = None, actor: str = "") -> Adapter:
    """Check an adapter and keep it; gateways know it within seconds. `tenants`: those there are; None: the file's.
    `actor`: who does it, for the audit log.

    Raises: AdapterRefused, LedgerError.
    """
    model = _model(fleet, wanted.model)
    spec = fleet.models[model]
    if spec.lora is None:
        raise AdapterRefused(f"the model {model!r} has no room for adapters; give it "
                             "`lora: {max_rank: 16}` in the fleet file and start it anew")
    _require_name(model, spec, wanted.name)
    known = fleet.tenants if tenants is None else tenants
    for tenant in wanted.tenants or ():
        if tenant not in known:
            raise AdapterRefused(f"there is no tenant {tenant!r}; {_hint(tenant, known, 'tenants')}")
    if not wanted.replace and any(a.name == wanted.name and a.model == model for a in store.present(ledger)):
        raise AdapterRefused(f"{model}:{wanted.name} is there already; --replace puts this one in its place")
    folder, rank = _checked(model, spec, wanted, checkpoints_dir)
    made = Adapter(f"lora_{secrets.token_hex(6)}", model, wanted.name, wanted.source, str(folder), rank,
                   wanted.description, wanted.tenants, now)
    store.put(ledger, made, wanted.replace, actor)
    return made


def remove(ledger: Ledger, fleet: Fleet, model: str, name: str, now: float, actor: str = "") -> Adapter:
    """Take an adapter away; gateways refuse it within seconds, what is under way ends. Raises: AdapterRefused."""
    found = fleet.model_names().get(model, model)
    removed = store.remove(ledger, found, name, now, actor)
    if removed is not None:
        return removed
    if found in fleet.models and name in fleet.models[found].adapters:
        raise AdapterRefused(f"{found}:{name} stands in the fleet file; take it out there")
    there = [a.addressed for a in store.present(ledger)]
    raise AdapterRefused(f"no adapter {found}:{name} was added; {_hint(f'{found}:{name}', there, 'added')}")


def _model(fleet: Fleet, name: str) -> str:
    found = fleet.model_names().get(name, "")
    if found not in fleet.models:
        raise AdapterRefused(f"the fleet {fleet.name!r} has no model {name!r}; {_hint(name, fleet.models, 'models')}")
    return found


def _require_name(model: str, spec: ModelSpec, name: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise AdapterRefused(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if name in spec.adapters:
        raise AdapterRefused(f"{model}:{name} stands in the fleet file; choose another name")


def _checked(model: str, spec: ModelSpec, wanted: Wanted, checkpoints_dir: Path) -> tuple[Path, int]:
    assert spec.lora is not None
    family, base = spec.small_family, spec.source
    if family is not None:
        base = str(checkpoints.make(family, checkpoints_dir))
    kind = wanted.source.removeprefix("small:") if wanted.source.startswith("small:") else None
    if kind is None:
        folder = adapters.folder_of(wanted.source)
    elif kind not in checkpoints.ADAPTERS:
        raise AdapterRefused(f"{wanted.source}: {_hint(kind, checkpoints.ADAPTERS, 'kinds')}")
    elif family is None:
        raise AdapterRefused(f"{wanted.source} fits a model whose own source is small: only; {model!r} is {base}")
    else:
        folder = checkpoints.make_adapter(Path(base), family, wanted.name, checkpoints_dir)
    return folder, adapters.inspect(folder, adapters.Base.of(model, base, spec.revision, spec.lora.max_rank),
                                    wanted.trust_base)


def _hint(name: str, known: Collection[str], what: str) -> str:
    return did_you_mean(name, sorted(known), what)
