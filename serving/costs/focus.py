"""The bill as FOCUS 1.3, the FinOps Open Cost and Usage Specification: what finance tools read.

A model's replicas on one accelerator are the resource, their cost is the origin charge, and each request is an
allocated charge of it (Data Generator-Calculated Split Cost Allocation): AllocatedResourceId is the request,
AllocatedMethodId how its part was found. What no request was charged with is the unallocated rest of the same origin
charge, without an AllocatedResourceId. Gateways, head node and storage are charges of their own.

`focus.yaml` keeps the columns as data; `check` holds every row against it before it is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files as resources
from typing import Any

import yaml

from serving.costs.files import Column, Row, Value, defused, moment
from serving.costs.rows import Charge
from serving.errors import FlotillaError
from serving.fleet.money import NANO

VERSION = "1.3"
REMAINDER = "unallocated-remainder"  # AllocatedMethodId of what no request was charged with
ISSUER = "Flotilla"
_TYPES = {"String": "text", "JSON": "text", "Decimal": "decimal", "Date/Time": "moment"}
_DIGITS = 18  # of hours, so that hours times the price give the cost to the nano-dollar
_SAID = {
    "request": "Request {id} to {model}", "idle": "Idle time of {model} that no request was charged with",
    "cold_start": "Cold start of {model} that no request was charged with", "overhead": "{role} of the fleet",
}


@dataclass(frozen=True)
class FocusColumn:
    """A column as the specification has it. `values`: all that are allowed; empty: any."""

    name: str
    type: str
    level: str
    nulls: bool
    values: tuple[str, ...] = ()


@cache
def columns() -> tuple[FocusColumn, ...]:
    """The columns of an export, in order."""
    read = yaml.safe_load((resources("serving.costs") / "focus.yaml").read_text(encoding="utf-8"))
    return tuple(FocusColumn(c["name"], c["type"], c["level"], c["nulls"], tuple(c.get("values", ())))
                 for c in read["columns"])


@cache
def _names() -> frozenset[str]:
    return frozenset(c.name for c in columns())


def file_columns() -> tuple[Column, ...]:
    """The same for the writers of files."""
    return tuple(Column(c.name, _TYPES[c.type], _DIGITS if c.name.endswith("Quantity") else 9)  # type: ignore[arg-type]
                 for c in columns())


def origins(charges: Iterable[Charge]) -> dict[tuple[str, str], int]:
    """What each (model, variant) cost in all, nano-USD: the origin charges that requests are parts of."""
    found: dict[tuple[str, str], int] = {}
    for charge in charges:
        if charge.kind != "overhead":
            key = (charge.model, charge.variant)
            found[key] = found.get(key, 0) + charge.nanousd
    return found


def table(charges: Iterable[Charge], origin: Mapping[tuple[str, str], int], fleet: str) -> Iterator[Row]:
    """Checked rows. `origin`: of the same charges. Requests that cost nothing are no charges and are left out.

    Raises: FlotillaError for a row that would not be FOCUS.
    """
    for charge in charges:
        if charge.kind == "request" and not charge.nanousd:
            continue
        found = row(charge, origin.get((charge.model, charge.variant), 0), fleet)
        if wrong := check(found):
            raise FlotillaError(f"{found['ChargeDescription']}: not FOCUS {VERSION}: {'; '.join(wrong)}")
        yield found


def row(charge: Charge, origin_nanousd: int, fleet: str) -> dict[str, Value]:
    """One charge in FOCUS's columns."""
    a, cost = charge.amounts, Decimal(charge.nanousd) / NANO
    begin, end = _period(charge.started_at, charge.ended_at)
    month, next_month = _month(begin)
    request, overhead = charge.request, charge.kind == "overhead"
    name = f"{charge.model} on {charge.variant}" if charge.variant else charge.model
    price, quantity, unit = charge.price_nanousd_per_hour, Decimal(1), "Requests"
    if price:
        quantity, unit = round(Decimal(charge.nanousd) / price, _DIGITS), "Hours"
    unit_price, sku = Decimal(price) / NANO if price else cost, charge.variant or charge.role
    said = _SAID[charge.kind].format(id=request.request_id if request else "", model=name, role=charge.role)
    found: dict[str, Value] = {
        "BilledCost": cost, "ContractedCost": cost, "EffectiveCost": cost, "ListCost": cost,
        "BillingAccountId": fleet, "BillingAccountName": fleet, "BillingAccountType": "Fleet", "BillingCurrency": "USD",
        "BillingPeriodStart": month, "BillingPeriodEnd": next_month, "ChargePeriodStart": begin,
        "ChargePeriodEnd": min(end, next_month), "ChargeCategory": "Usage", "ChargeClass": None,
        "ChargeDescription": said, "ChargeFrequency": "Usage-Based", "HostProviderName": "Not Applicable",
        "InvoiceIssuerName": ISSUER, "ProviderName": ISSUER, "PublisherName": ISSUER, "ServiceProviderName": ISSUER,
        "PricingCategory": "Standard", "PricingQuantity": quantity, "PricingUnit": unit,
        "ListUnitPrice": unit_price, "ContractedUnitPrice": unit_price, "ConsumedQuantity": quantity,
        "ConsumedUnit": unit, "SkuId": sku, "SkuMeter": f"{unit} of {sku}", "SkuPriceId": f"{sku} at {unit_price:f}",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "AI Platforms" if overhead else "Generative AI",
        "ServiceName": f"Flotilla {charge.role}" if overhead else charge.model or "Flotilla",
        "SubAccountId": charge.tenant or None, "SubAccountName": charge.tenant or None,
        "SubAccountType": "Tenant" if charge.tenant else None, "Tags": _json({"flotilla/fleet": fleet}),
        "x_DirectCost": _usd(a.direct), "x_WasteCost": _usd(a.waste), "x_IdleCost": _usd(a.idle),
        "x_ColdStartCost": _usd(a.cold_start), "x_OverheadCost": _usd(charge.overhead),
        "x_ReplicaIds": " ".join(charge.source_ids) or None, "x_Outcome": request.outcome if request else None,
        "ResourceId": charge.source_ids[0] if overhead else name, "ResourceName": name or charge.role,
        "ResourceType": charge.role.capitalize() if overhead else "Model replicas",
    }
    if overhead:
        return found
    ratio = Decimal(charge.nanousd) / origin_nanousd if origin_nanousd else Decimal(0)
    element: dict[str, Any] = {"AllocatedRatio": float(round(ratio, 15)), "UsageUnit": unit,
                               "UsageQuantity": float(quantity)}
    found["AllocatedMethodId"] = request.method or REMAINDER if request else REMAINDER
    found["AllocatedMethodDetails"] = _json({"Elements": [element]})
    if request:
        found |= {"AllocatedResourceId": request.request_id,
                  "AllocatedResourceName": defused(request.caller_id.strip()) or request.request_id,
                  "AllocatedTags": _json(_tags(charge)), "ConsumedQuantity": Decimal(_tokens(charge)),
                  "ConsumedUnit": "Tokens"}
    return found


def check(found: Mapping[str, Value]) -> list[str]:
    """What is wrong with a row, by the column table and by the rules that tie columns together; empty: nothing."""
    wrong = [f"{name} is no column" for name in found if name not in _names()]
    for column in columns():
        value = found.get(column.name)
        if value is None:
            if not column.nulls:
                wrong.append(f"{column.name} is null")
        elif not isinstance(value, {"Decimal": Decimal, "Date/Time": datetime}.get(column.type, str)):
            wrong.append(f"{column.name} is {value!r}, not of type {column.type}")
        elif column.type == "JSON" and not _is_object(str(value)):
            wrong.append(f"{column.name} is {value!r}, no JSON object")
        elif isinstance(value, str) and (not value or value != value.strip()):
            wrong.append(f"{column.name} is {value!r}: empty, or with space around it")
        elif isinstance(value, datetime) and (value.utcoffset() is None or value.utcoffset().total_seconds() != 0):
            wrong.append(f"{column.name} is {value!r}, not in UTC")
        elif column.values and value not in column.values:
            wrong.append(f"{column.name} is {value!r}; allowed: {', '.join(column.values)}")
    return wrong or _together(found)


def _together(f: Mapping[str, Any]) -> list[str]:
    rules = {
        "ChargePeriodStart is not before ChargePeriodEnd": f["ChargePeriodStart"] < f["ChargePeriodEnd"],
        "the charge begins outside of its billing period":
            f["BillingPeriodStart"] <= f["ChargePeriodStart"] < f["BillingPeriodEnd"],
        "AllocatedResourceName and AllocatedResourceId go together":
            (f.get("AllocatedResourceId") is None) == (f.get("AllocatedResourceName") is None),
        "an allocated charge needs AllocatedMethodId":
            f.get("AllocatedResourceId") is None or f.get("AllocatedMethodId") is not None,
        "AllocatedMethodDetails and AllocatedMethodId go together":
            (f.get("AllocatedMethodId") is None) == (f.get("AllocatedMethodDetails") is None),
        "AllocatedTags are for allocated charges only":
            f.get("AllocatedMethodId") is not None or f.get("AllocatedTags") is None,
        "a quantity and its unit go together":
            all((f.get(f"{n}Quantity") is None) == (f.get(f"{n}Unit") is None) for n in ("Consumed", "Pricing")),
        "SubAccountType and SubAccountId go together":
            (f.get("SubAccountId") is None) == (f.get("SubAccountType") is None),
        "price times quantity is not the cost":
            all(round(f[f"{n}UnitPrice"] * f["PricingQuantity"], 9) == f[f"{n}Cost"] for n in ("List", "Contracted")),
        "the parts of the cost do not add up": f["BilledCost"] == sum(
            f[f"x_{part}Cost"] for part in ("Direct", "Waste", "Idle", "ColdStart", "Overhead")),
    }
    return [name for name, holds in rules.items() if not holds]


def _usd(nanousd: int) -> Decimal:
    return Decimal(nanousd) / NANO


def _tokens(charge: Charge) -> int:
    return charge.request.tokens.prompt + charge.request.tokens.completion if charge.request else 0


def _tags(charge: Charge) -> dict[str, str]:
    request = charge.request
    tags = {"flotilla/tenant": charge.tenant, "flotilla/key": request.key_id if request else "",
            "flotilla/endpoint": request.endpoint if request else "",
            "flotilla/adapter": request.adapter if request else "",
            "flotilla/preset": request.preset if request else ""}
    return {name: value for name, value in tags.items() if value}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _period(begin_s: float, end_s: float) -> tuple[datetime, datetime]:
    """Whole seconds around the charge; the end is not part of it."""
    begin = math.floor(begin_s)
    return moment(begin), moment(max(math.ceil(end_s), begin + 1))


def _month(at: datetime) -> tuple[datetime, datetime]:
    begin = datetime(at.year, at.month, 1, tzinfo=UTC)
    return begin, datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
