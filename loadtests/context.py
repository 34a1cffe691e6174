"""What the report knows about the fleet besides the records: context.json (prices, objectives, comparators)
and ledger.json (what the run was metered at).

Both are written by the serving side, so unknown fields are let pass: a newer fleet may say more than this
report reads. What is read is validated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from loadtests.errors import ScenarioError
from loadtests.scenario import Slo

NotNegative = Annotated[float, Field(ge=0)]
Role = Literal["same_model_hosted", "cheapest_proprietary", "frontier"]
ROLES: tuple[Role, ...] = ("same_model_hosted", "cheapest_proprietary", "frontier")


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Comparator(_Foreign):
    """A hosted API that could answer the same traffic; USD per million tokens."""

    name: str
    role: Role
    input_usd_per_mtok: NotNegative
    cached_input_usd_per_mtok: NotNegative | None = None
    """None: cached input costs as much as other input."""
    output_usd_per_mtok: NotNegative
    batch: bool = False
    """Whether the prices are those of its batch interface."""
    token_ratio: float | None = None
    """Its tokens per token of ours; the prices above have it in them."""
    token_ratio_source: str = ""


class ModelContext(_Foreign):
    """What the fleet says about one model."""

    source: str = ""
    architecture: str = ""
    accelerator: str = ""
    price_usd_per_hour: NotNegative | None = None
    slo: Slo | None = None
    random_weights: bool = False
    comparators: tuple[Comparator, ...] = ()

    @field_validator("slo", mode="before")
    @classmethod
    def _known_objectives(cls, value: Any) -> Any:
        # Slo itself is strict, because people write it in scenarios; here a newer fleet may say more.
        return (
            {key: value[key] for key in Slo.model_fields if key in value}
            if isinstance(value, dict)
            else value
        )


class FleetContext(_Foreign):
    name: str
    file: str = ""


class PriceBook(_Foreign):
    """Where the API prices are from."""

    version: str
    origin: str = ""


class Machine(_Foreign):
    """What the fleet's command line ran on; memory in GiB."""

    system: str = ""
    processor: str = ""
    cores: int | None = None
    memory_gib: float | None = None
    accelerators: tuple[str, ...] = ()


class Context(_Foreign):
    """context.json. versions and commit: of what serves."""

    fleet: FleetContext
    models: dict[str, ModelContext] = {}
    price_book: PriceBook | None = None
    versions: dict[str, str] = {}
    commit: str = ""
    machine: Machine | None = None


class Buckets(_Foreign):
    """Integer nano-USD, each bucket of the cost apart."""

    direct: int = 0
    waste: int = 0
    idle: int = 0
    cold_start: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        return self.direct + self.waste + self.idle + self.cold_start + self.overhead


class ModelLedger(_Foreign):
    requests: int
    nanousd: Buckets


class Against(_Foreign):
    """One comparator of a break-even. Utilisations as shares of what replicas could do; above 1: never."""

    name: str
    role: Role | Literal[""] = ""
    usd_per_request: NotNegative
    breakeven: NotNegative | None = None
    for_saving: NotNegative | None = None


class BreakEven(_Foreign):
    """From which utilisation on a model of one's own is cheaper than each API; missing: why that is not known.

    A request costs price · overhead_factor / (3600 · capacity · utilisation). saving: the one of `for_saving`.
    """

    price_usd_per_hour: NotNegative | None = None
    overhead_factor: NotNegative | None = None
    capacity_per_s: NotNegative | None = None
    utilisation: NotNegative | None = None
    saving: float = 0.9
    against: tuple[Against, ...] = ()
    missing: str = ""


class Ledger(_Foreign):
    """ledger.json: what was metered between the run's start and end."""

    models: dict[str, ModelLedger]
    residual_nanousd: int = 0
    break_even: dict[str, BreakEven] = {}


Document = TypeVar("Document", Context, Ledger)


def load_context(path: Path) -> Context:
    """Raises ScenarioError."""
    return _load(Context, path)


def load_ledger(path: Path) -> Ledger:
    """Raises ScenarioError."""
    return _load(Ledger, path)


def _load(kind: type[Document], path: Path) -> Document:
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ScenarioError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
