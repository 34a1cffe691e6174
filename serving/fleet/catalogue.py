"""The fleet file: which models run on which accelerators, for whom, and what they promise.

One frozen value describes the whole fleet; laptop, GPU box, load test and cost report all read the same one.
`load` reads it, the two price books that it names and the entries of the model catalogue that it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from serving.errors import ConfigError
from serving.fleet import accelerator_book, presets, prices, sizing
from serving.fleet.accelerator_book import AcceleratorBook
from serving.fleet.accelerators import AcceleratorProfile, price_rows, resolve, scaled
from serving.fleet.adapters import Adapter
from serving.fleet.autoscaling.spec import FleetScalingSpec
from serving.fleet.config import Strict, read, wrong_reference, wrong_value
from serving.fleet.costspecs import Comparator, CostSpec, LedgerSpec
from serving.fleet.fill import FOLDER, fill
from serving.fleet.media import MediaSpec
from serving.fleet.models import engineargs, entries
from serving.fleet.models.entries import Catalogue, Entry
from serving.fleet.modelspec import ModelSpec
from serving.fleet.modelspec import ReplicaRange as ReplicaRange
from serving.fleet.money import PriceLine
from serving.fleet.observing import LogSpec, MetricsSpec, TraceSpec
from serving.fleet.presets import PresetSpec
from serving.fleet.specs import (
    AdapterSpec,
    AdminSpec,
    GatewaySpec,
    Name,
    OidcSpec,
    QuotaSpec,
    RouteSpec,
    TenantSpec,
)


class Fleet(Strict):
    """A whole fleet, as its file says."""

    name: Name
    prices: str = Field(description="Price book of API models, relative to the fleet file.")
    accelerator_prices: str | None = Field(None, description="Price book of accelerators, relative to the fleet file; "
                                                             "for profiles with price: instead of a number.")
    catalogue: str = Field(FOLDER, description="Folder of the model catalogue, relative to the fleet file; "
                                                       "read when a model names an entry of it.")
    accelerators: dict[Name, AcceleratorProfile] = Field(min_length=1)
    models: dict[Name, ModelSpec] = Field(min_length=1)
    routes: dict[Name, RouteSpec] = Field(default_factory=dict)
    presets: dict[Name, PresetSpec] = Field(default_factory=dict)
    tenants: dict[Name, TenantSpec] = Field(min_length=1)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    media: MediaSpec = Field(default_factory=MediaSpec)
    metrics: MetricsSpec = Field(default_factory=MetricsSpec)
    traces: TraceSpec = Field(default_factory=TraceSpec)
    logs: LogSpec = Field(default_factory=LogSpec)
    costs: CostSpec = Field(default_factory=CostSpec)
    scaling: FleetScalingSpec = Field(default_factory=FleetScalingSpec)
    ledger: LedgerSpec = Field(default_factory=LedgerSpec)
    quotas: QuotaSpec = Field(default_factory=QuotaSpec)
    admin: AdminSpec = Field(default_factory=AdminSpec)
    oidc: OidcSpec | None = Field(None, description="Tokens of an identity provider, beside keys.")

    _accelerator_book: AcceleratorBook | None = PrivateAttr(None)
    _entries: dict[str, Entry] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_the_catalogue(cls, data: object, info: ValidationInfo) -> object:
        context = info.context or {}
        return fill(data, context.get("catalogue"), context.get("accelerator_book"))

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Fleet:
        owner = {name: ("models", name) for name in self.models}
        for kind, names in (("routes", self.routes), ("presets", self.presets)):
            for name in names:
                if name in owner:
                    raise wrong_value((kind, name), f"{name!r} is a {owner[name][0].removesuffix('s')} already; choose "
                                      f"another name for the {kind.removesuffix('s')}")
                owner[name] = (kind, name)
        named = [("models", n, m.aliases) for n, m in self.models.items()]
        for kind, name, aliases in [*named, *(("routes", n, r.aliases) for n, r in self.routes.items())]:
            for index, alias in enumerate(aliases):
                if alias in owner:
                    raise wrong_value((kind, name, "aliases", index),
                                      f"alias {alias!r} of {name!r} already names {owner[alias][1]!r}; choose another")
                owner[alias] = (kind, name)
        return self

    @model_validator(mode="after")
    def _references_exist(self, info: ValidationInfo) -> Fleet:
        book = (info.context or {}).get("book")
        families = (info.context or {}).get("small_families", ())
        kinds = (info.context or {}).get("small_adapters", ())
        for name, model in self.models.items():
            if model.accelerator not in self.accelerators:
                raise wrong_reference(("models", name, "accelerator"), model.accelerator, self.accelerators)
            if families and model.small_family is not None and model.small_family not in families:
                raise wrong_reference(("models", name, "source"), model.small_family, families)
            self._check_comparators(name, model, book)
            for adapter in model.small_adapters:
                at, kind = ("models", name, "adapters", adapter, "source"), model.adapters[adapter].small_kind
                if kinds and kind not in kinds:
                    raise wrong_reference(at, kind, kinds)
                if model.small_family is None:
                    raise wrong_value(at, f"small:{kind} fits a model whose own source is small: only; {name!r} has "
                                          f"{model.source!r}")
        self._check_names()
        self._check_owners()
        return self

    @model_validator(mode="after")
    def _every_price_is_there(self, info: ValidationInfo) -> Fleet:
        for name, profile in self.accelerators.items():
            if profile.price is not None and self.accelerator_prices is None:
                raise wrong_value(("accelerators", name, "price"), "is to be found in a price book, and the file names "
                                  "none; add accelerator_prices: with its path, or give price_usd_per_hour")
        self._accelerator_book = (info.context or {}).get("accelerator_book")
        for name, profile in self.accelerators.items() if self._accelerator_book else ():
            try:
                price_rows(profile, self._accelerator_book)
            except ConfigError as error:
                raise wrong_value(("accelerators", name, "price"), str(error)) from None
        return self

    @model_validator(mode="after")
    def _scaling_is_possible(self, info: ValidationInfo) -> Fleet:
        least: dict[str, tuple[int, int]] = {}
        for name, model in self.models.items():
            try:
                price: int | None = self.price_nanousd_per_hour(name)
            except ConfigError:  # the node decides, or the price book is still to be read
                price = None
            for at, text in model.scaling.troubles(model.replicas.min, model.replicas.max, price):
                raise wrong_value(("models", name, "scaling", *at), text)
            least[name] = (model.replicas.min, price or 0)
        if text := self.scaling.trouble(least):
            raise wrong_value(("scaling", "max_usd_per_hour"), text)
        return self

    @model_validator(mode="after")
    def _arguments_are_vllms(self) -> Fleet:
        for name, model in self.models.items():
            at, engine = ("models", name, "engine"), model.engine
            for path, text in engineargs.troubles(engine.args):
                raise wrong_value((*at, "args", *path), text)
            for kind, parser in (("tool_call_parser", engine.tool_call_parser),
                                 ("reasoning_parser", engine.reasoning_parser)):
                plugin = "tool_parser_plugin" if kind == "tool_call_parser" else "reasoning_parser_plugin"
                if parser and plugin not in engine.args and (text := engineargs.parser_trouble(kind, parser)):
                    raise wrong_value((*at, kind), text)
        return self

    @model_validator(mode="after")
    def _every_model_fits(self, info: ValidationInfo) -> Fleet:
        catalogue: Callable[[str], Catalogue] | None = (info.context or {}).get("catalogue")
        for name, model in self.models.items():
            if model.catalogue is None or catalogue is None:
                continue
            entry = self._entries[name] = catalogue(self.catalogue).named(model.catalogue)
            if model.small_family is None and (
                    wrong := sizing.trouble(model, self.accelerators[model.accelerator], entry)):
                raise wrong_value(("models", name, "catalogue"), wrong)
            if model.small_family is None and (
                    slow := sizing.impossible(model, self.accelerators[model.accelerator], entry)):
                raise wrong_value(("models", name, "slo", *slow[0]), slow[1])
        return self

    @staticmethod
    def _check_comparators(name: str, model: ModelSpec, book: prices.PriceBook | None) -> None:
        """Each names a price that is there; none, and no role, twice."""
        roles: set[str] = set()
        names: set[str] = set()
        for index, comparator in enumerate(model.comparators):
            at = ("models", name, "comparators", index)
            if comparator.role in roles:
                raise wrong_value((*at, "role"), f"{name!r} has a comparator that is {comparator.role} already; keep "
                                                 "one of each role")
            if comparator.name in names:
                raise wrong_value((*at, "price"), f"{comparator.price!r} is compared with already; one price serves "
                                                  "one role")
            roles.add(comparator.role)
            names.add(comparator.name)
            if book is None:
                continue
            if comparator.price in book.unpriced:
                raise wrong_value((*at, "price"), book.missing(comparator.price))
            if comparator.price not in book.prices:
                raise wrong_reference((*at, "price"), comparator.price, book.prices)
            try:
                _comparison(comparator, book)
            except ConfigError as error:
                raise wrong_value((*at, "batch"), str(error)) from None

    def _check_owners(self) -> None:
        for name, model in self.models.items():
            if model.owner is not None and model.owner not in self.tenants:
                raise wrong_reference(("models", name, "owner"), model.owner, self.tenants)
            if model.owner is None and self.costs.idle == "owner" and model.replicas.min > 0:
                raise wrong_value(("models", name), f"costs.idle is owner, so {name!r}, of which {model.replicas.min} "
                                  "always runs, needs an owner: the tenant that is charged with its idle time; or set "
                                  "replicas.min to 0")

    def _check_names(self) -> None:
        """Fallbacks, routes and tenants name what there is."""
        for name, model in self.models.items():
            for index, other in enumerate(model.fallback):
                at = ("models", name, "fallback", index)
                if other not in self.models:
                    raise wrong_reference(at, other, self.models)
                if other == name or other in model.fallback[:index]:
                    raise wrong_value(at, f"{other!r} is asked already; name each model once, and not {name!r} itself")
            for tenant in model.slo.tenants:
                if tenant not in self.tenants:
                    raise wrong_reference(("models", name, "slo", "tenants", tenant), tenant, self.tenants)
            for adapter, said in model.adapters.items():
                for index, tenant in enumerate(said.tenants or ()):
                    if tenant not in self.tenants:
                        at = ("models", name, "adapters", adapter, "tenants", index)
                        raise wrong_reference(at, tenant, self.tenants)
        for name, route in self.routes.items():
            for variant in route.variants:
                if variant not in self.models:
                    raise wrong_reference(("routes", name, "variants", variant), variant, self.models)
        unset = self.model_names()
        deaf = [name for name, model in self.models.items() if model.engine.tool_call_parser is None]
        presets.check(self.presets, unset, {found: self.answering(found) for found in unset.values()}, deaf)
        known = self.callable_names()
        for name, tenant in self.tenants.items():
            for index, allowed in enumerate(tenant.models or ()):
                if allowed not in known:
                    raise wrong_reference(("tenants", name, "models", index), allowed, known)
            for model in tenant.model_limits:
                if model not in self.models:
                    raise wrong_reference(("tenants", name, "model_limits", model), model, self.models)
        for claim, tenant_name in (self.oidc.tenants if self.oidc else {}).items():
            if tenant_name not in self.tenants:
                raise wrong_reference(("oidc", "tenants", claim), tenant_name, self.tenants)
        if self.admin.enabled and (self.admin.host, self.admin.port) == (self.gateway.host, self.gateway.port):
            raise wrong_value(("admin", "port"), f"{self.admin.port} is the API's own port; admin routes need another")

    def callable_names(self) -> dict[str, str]:
        """Every name that a request may carry, to the name it stands for: models, routes, adapters, aliases, and
        presets with and without a version."""
        return self.model_names() | {name: name for name in presets.names(self.presets)}

    def model_names(self) -> dict[str, str]:
        """The same without presets."""
        found: dict[str, str] = {}
        for name, model in self.models.items():
            for given in (name, *model.aliases):
                found[given] = name
                found |= {f"{given}:{adapter}": f"{name}:{adapter}" for adapter in model.adapters}
        for name, route in self.routes.items():
            found |= dict.fromkeys((name, *route.aliases), name)
        return found

    def answering(self, name: str) -> tuple[str, ...]:
        """The models that may answer a name that `model_names` stands for, fallbacks left out."""
        return tuple(self.routes[name].variants) if name in self.routes else (name.partition(":")[0],)

    def with_adapters(self, added: Iterable[Adapter]) -> Fleet:
        """This fleet with adapters that were added while it runs; those that the file names stay as they are."""
        more: dict[str, dict[str, AdapterSpec]] = {}
        for adapter in added:
            spec = self.models.get(adapter.model)
            if spec is not None and spec.lora is not None and adapter.name not in spec.adapters:
                more.setdefault(adapter.model, {})[adapter.name] = AdapterSpec.model_construct(
                    source=adapter.source, description=adapter.description, tenants=adapter.tenants)
        models = {name: spec.model_copy(update={"adapters": spec.adapters | more[name]}) if name in more else spec
                  for name, spec in self.models.items()}
        return self.model_copy(update={"models": models})

    @property
    def accelerator_book(self) -> AcceleratorBook | None:
        """The accelerator price book that the file names, as `load` read it."""
        return self._accelerator_book

    def entry(self, model: str) -> Entry | None:
        """The catalogue's entry of a model, if it names one."""
        return self._entries.get(model)

    def variant(self, model: str) -> str:
        """What a replica of the model runs on: the accelerator profile and how many of its devices, as `h100 x2`."""
        spec = self.models[model]
        return spec.accelerator + (f" x{spec.devices}" if spec.devices > 1 else "")

    def price_line(self, model: str, labels: Mapping[str, str] | None = None) -> PriceLine:
        """What one replica of `model` costs over time, all its devices together.

        `labels`: those of the Kubernetes node it runs on, needed where its profile has `from_node_labels`.
        Raises: ConfigError when they are needed and missing, or lead to no price.
        """
        spec = self.models[model]
        try:
            line = resolve(self.accelerators[spec.accelerator], self._accelerator_book, labels)
        except ConfigError as error:
            raise ConfigError(f"accelerators.{spec.accelerator}.price: {error}") from error
        return scaled(line, spec.devices)

    def price_nanousd_per_hour(self, model: str, at: float | None = None) -> int:
        """Price of one replica of `model` for an hour at a moment (Unix seconds), nano-USD.

        Without a moment: the newest price known, which may be dated in the future; whoever has a clock passes its time.
        Raises: ConfigError where the price depends on the node; see `price_line`.
        """
        line = self.price_line(model)
        return line.changes[-1][1] if at is None else line.at(at)


def load(path: Path, small_families: tuple[str, ...] = (), small_adapters: tuple[str, ...] = ()) -> Fleet:
    """Read and check a fleet file and the price books it names.

    `small_families`, `small_adapters`: what `small:` may name in a model's and in an adapter's source; empty skips that
    check.
    Raises: ConfigError, which names the file, the line, the key and the nearest right name.
    """
    catalogue = cache(lambda folder: entries.load(path.parent / folder))
    bare = read(path, Fleet, {"catalogue": catalogue})
    return read(path, Fleet, {"book": price_book(bare, path), "accelerator_book": _accelerator_book(bare, path),
                              "small_families": small_families, "small_adapters": small_adapters,
                              "catalogue": catalogue})


def price_book(fleet: Fleet, path: Path) -> prices.PriceBook:
    """The price book that the fleet file at `path` names."""
    return prices.load(path.parent / fleet.prices)


def read_accelerator_book(path: Path) -> AcceleratorBook:
    """The accelerator price book in a file. Raises: ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the accelerator price book cannot be read: {error}") from error
    return accelerator_book.parse(text, str(path))


def comparisons(fleet: Fleet, model: str, book: prices.PriceBook) -> tuple[prices.Comparison, ...]:
    """The APIs that a model's traffic is held against, with their prices. Raises: ConfigError for one without."""
    return tuple(_comparison(comparator, book) for comparator in fleet.models[model].comparators)


def _comparison(comparator: Comparator, book: prices.PriceBook) -> prices.Comparison:
    return prices.Comparison(comparator.name, comparator.role, book[comparator.price], comparator.token_ratio,
                             comparator.token_ratio_source, comparator.batch)


def _accelerator_book(fleet: Fleet, path: Path) -> AcceleratorBook | None:
    return read_accelerator_book(path.parent / fleet.accelerator_prices) if fleet.accelerator_prices else None
