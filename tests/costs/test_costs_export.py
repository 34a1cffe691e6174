"""Exports: their sum is the bill to the nano-dollar, files are whole or not there, FOCUS is what it says."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from cost_samples import START, Replica, bill, overhead

from serving.costs import focus, plainexport
from serving.costs.files import Column, defused, write_csv, write_parquet, write_text
from serving.costs.rows import Charge, charges, rates
from serving.errors import ConfigError, FlotillaError
from serving.fleet.attribution import Work
from serving.fleet.records import Amounts, IntervalRecord, MeterReading, Tokens

NANO = 1_000_000_000


@dataclass(frozen=True)
class Row:
    """A request as the ledger gives it."""

    request_id: str
    caller_id: str
    tenant: str
    key_id: str
    model: str
    variant: str
    endpoint: str
    code: int | None
    outcome: str
    started_at: float
    duration_s: float | None
    ttft_s: float | None
    stream: bool | None
    tokens: Tokens
    amounts: Amounts
    method: str
    compared: dict[str, int] = field(default_factory=dict)
    source_ids: tuple[str, ...] = ("r1",)
    adapter: str = ""
    preset: str = ""


@dataclass(frozen=True)
class Hour:
    """An interval as the ledger gives it."""

    record: IntervalRecord
    role: str
    model: str
    variant: str
    idle_tenant: str
    left_idle: int
    left_cold_start: int


def rows_of(replica: Replica, reading: MeterReading) -> Iterator[Row]:
    for c in reading.charges:
        q = replica.requests[c.request_id]
        yield Row(c.request_id, q.caller_id, c.tenant, q.key_id, q.model, replica.variant, q.endpoint, q.code,
                  q.outcome, q.started_at, q.duration_s, q.ttft_s, q.stream, c.tokens, c.amounts, c.method,
                  {"api": 12_345})


def hours_of(reading: MeterReading) -> Iterator[Hour]:
    """What requests drew counts against the oldest intervals first."""
    a = sum((c.amounts for c in reading.charges), Amounts())
    idle, cold = a.idle, a.cold_start
    for i in reading.intervals:
        took = min(idle, i.idle_nanousd), min(cold, i.cold_nanousd)
        idle, cold = idle - took[0], cold - took[1]
        s = reading.source
        yield Hour(i, s.role, s.model, s.variant, s.idle_tenant, i.idle_nanousd - took[0], i.cold_nanousd - took[1])


@pytest.fixture(scope="module")
def sample() -> tuple[list[Charge], int]:
    """Four requests of two tenants over three hours, a gateway beside them, and the bill."""
    replica = Replica(compared=())
    replica.ready(61.5)
    replica.idle(3000.25)
    replica.serve(["flo-1", "flo-2"], 120, 9, tenant="search")
    replica.idle(7300.125)
    replica.serve(["flo-3"], 333, 4, cached=32)
    replica.step([Work("flo-4", 40, 0, "prefill")])
    replica.end("flo-4", "aborted", Tokens(40, 0, 0), caller_id="=SUM(A1)")
    replica.idle(9000)
    readings = [replica.reading(), overhead(hours=2.5)]
    hours = [h for r in readings for h in hours_of(r)]
    return list(charges(rows_of(replica, readings[0]), hours, rates(hours))), bill(readings)


def test_lines_add_up_to_the_bill(sample: tuple[list[Charge], int]) -> None:
    lines, whole = sample
    assert sum(line.nanousd for line in lines) == whole > 0
    assert {line.kind for line in lines} == {"request", "idle", "cold_start", "overhead"}


def test_a_csv_adds_up_to_the_nano_dollar(sample: tuple[list[Charge], int], tmp_path: Path) -> None:
    lines, whole = sample
    file = tmp_path / "out.csv"
    assert write_csv(file, plainexport.COLUMNS, plainexport.table(lines)) == len(lines)
    with open(file, newline="") as text:
        read = list(csv.DictReader(text))
    assert sum(Decimal(r["total_usd"]) for r in read) * NANO == whole
    for r in read:
        assert sum(Decimal(r[f"{n}_usd"]) for n in ("direct", "waste", "idle", "cold_start", "overhead")) == Decimal(
            r["total_usd"])
    aborted = next(r for r in read if r["request_id"] == "flo-4")
    assert aborted["caller_id"] == "'=SUM(A1)" and Decimal(aborted["waste_usd"]) > 0 == Decimal(aborted["direct_usd"])
    assert aborted["started_at"].endswith("Z") and json.loads(aborted["compared_usd"]) == {"api": "0.000012345"}


def test_parquet_has_exact_decimals_and_adds_up(sample: tuple[list[Charge], int], tmp_path: Path) -> None:
    from pyarrow import parquet

    lines, whole = sample
    file = tmp_path / "out.parquet"
    write_parquet(file, plainexport.COLUMNS, plainexport.table(lines))
    read = parquet.read_table(file)
    assert sum(read["total_usd"].to_pylist()) * NANO == whole
    assert str(read.schema.field("total_usd").type) == "decimal128(38, 9)"
    assert str(read.schema.field("started_at").type) == "timestamp[us, tz=UTC]"


def test_focus_adds_up_and_its_ratios_are_one_for_each_origin(sample: tuple[list[Charge], int],
                                                              tmp_path: Path) -> None:
    lines, whole = sample
    file = tmp_path / "focus.csv"
    write_csv(file, focus.file_columns(), focus.table(lines, focus.origins(lines), "laptop"))
    with open(file, newline="") as text:
        read = list(csv.DictReader(text))
    for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(r[name]) for r in read) * NANO == whole
    ratios: dict[str, float] = {}
    for r in read:
        if r["AllocatedMethodDetails"]:
            (element,) = json.loads(r["AllocatedMethodDetails"])["Elements"]
            ratios[r["ResourceId"]] = ratios.get(r["ResourceId"], 0.0) + element["AllocatedRatio"]
    assert ratios == {"qwen on h100": pytest.approx(1, abs=1e-12)}


def test_focus_price_times_quantity_is_the_cost_in_the_file(sample: tuple[list[Charge], int], tmp_path: Path) -> None:
    lines, _ = sample
    file = tmp_path / "focus.csv"
    write_csv(file, focus.file_columns(), focus.table(lines, focus.origins(lines), "laptop"))
    with open(file, newline="") as text:
        for r in csv.DictReader(text):
            assert round(Decimal(r["ListUnitPrice"]) * Decimal(r["PricingQuantity"]), 9) == Decimal(r["ListCost"])


def test_focus_parquet_is_written_with_the_same_rows(sample: tuple[list[Charge], int], tmp_path: Path) -> None:
    from pyarrow import parquet

    lines, whole = sample
    file = tmp_path / "focus.parquet"
    count = write_parquet(file, focus.file_columns(), focus.table(lines, focus.origins(lines), "laptop"))
    read = parquet.read_table(file)
    assert read.num_rows == count and sum(read["BilledCost"].to_pylist()) * NANO == whole


def rows(lines: list[Charge]) -> list[dict]:
    origins = focus.origins(lines)
    return [focus.row(line, origins.get((line.model, line.variant), 0), "laptop") for line in lines]


def test_requests_are_allocated_charges_and_what_is_left_is_not(sample: tuple[list[Charge], int]) -> None:
    by_kind = {line.kind: row for line, row in zip(sample[0], rows(sample[0]), strict=True)}
    request, idle, over = by_kind["request"], by_kind["idle"], by_kind["overhead"]
    assert request["AllocatedResourceId"] == "flo-4" and request["AllocatedMethodId"].startswith("step-shapley")
    assert json.loads(request["AllocatedTags"])["flotilla/tenant"] == "demo"
    assert idle.get("AllocatedResourceId") is None and idle["AllocatedMethodId"] == focus.REMAINDER
    assert idle["ResourceId"] == request["ResourceId"] and idle["SubAccountId"] is None
    assert over.get("AllocatedMethodId") is None and over["ResourceType"] == "Gateway"
    assert request["BillingPeriodStart"] == datetime(2025, 11, 1, tzinfo=UTC)
    assert request["BillingPeriodEnd"] == datetime(2025, 12, 1, tzinfo=UTC)


def test_every_row_of_a_sample_passes_the_column_table(sample: tuple[list[Charge], int]) -> None:
    assert [focus.check(row) for row in rows(sample[0])] == [[]] * len(sample[0])


@pytest.mark.parametrize(("changes", "says"), [
    ({"BilledCost": None}, "BilledCost is null"),
    ({"BilledCost": 0.5}, "not of type Decimal"),
    ({"ServiceCategory": "AI"}, "allowed: AI and Machine Learning"),
    ({"ServiceName": " x"}, "space around it"),
    ({"ServiceName": ""}, "empty"),
    ({"Tags": "[1]"}, "no JSON object"),
    ({"Surprise": "x"}, "Surprise is no column"),
    ({"ChargePeriodStart": datetime(2025, 11, 24)}, "not in UTC"),
    ({"ChargePeriodEnd": datetime(2025, 11, 1, tzinfo=UTC)}, "ChargePeriodStart is not before"),
    ({"BillingPeriodEnd": datetime(2025, 11, 2, tzinfo=UTC)}, "outside of its billing period"),
    ({"AllocatedResourceName": None}, "go together"),
    ({"AllocatedMethodId": None}, "needs AllocatedMethodId"),
    ({"x_WasteCost": Decimal(1)}, "do not add up"),
    ({"PricingQuantity": Decimal(1)}, "price times quantity is not the cost"),
    ({"SubAccountType": None}, "SubAccountType and SubAccountId go together"),
    ({"ConsumedUnit": None}, "a quantity and its unit go together"),
])
def test_a_row_that_is_not_focus_is_found_out(sample: tuple[list[Charge], int], changes: dict, says: str) -> None:
    good = rows([line for line in sample[0] if line.kind == "request"][:1] + sample[0][1:2])[0]
    assert focus.check(good) == []
    assert any(says in text for text in focus.check(good | changes))


def test_a_wrong_row_stops_the_export_and_leaves_no_file(sample: tuple[list[Charge], int], tmp_path: Path) -> None:
    bad = replace(sample[0][0], model=" spaced ", variant="")
    file = tmp_path / "focus.csv"
    file.write_text("the one before")
    with pytest.raises(FlotillaError, match="not FOCUS 1.3"):
        write_csv(file, focus.file_columns(), focus.table([*sample[0][1:], bad], {}, "laptop"))
    assert file.read_text() == "the one before" and [p.name for p in tmp_path.iterdir()] == ["focus.csv"]


def test_a_charge_without_a_known_price_is_one_request(sample: tuple[list[Charge], int]) -> None:
    row = focus.row(replace(sample[0][0], price_nanousd_per_hour=0), 0, "laptop")
    assert (row["PricingQuantity"], row["PricingUnit"]) == (1, "Requests") and focus.check(row) == []


def test_a_charge_over_the_end_of_a_month_stays_in_its_billing_period(sample: tuple[list[Charge], int]) -> None:
    late = datetime(2025, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC).timestamp()
    row = focus.row(replace(sample[0][0], started_at=late, ended_at=late + 30), 1, "laptop")
    assert focus.check(row) == [] and row["ChargePeriodEnd"] == row["BillingPeriodEnd"] == datetime(2026, 1, 1,
                                                                                                    tzinfo=UTC)


def test_requests_that_cost_nothing_are_no_charges(sample: tuple[list[Charge], int]) -> None:
    free = replace(sample[0][0], amounts=Amounts())
    assert list(focus.table([free], {}, "laptop")) == []


def test_the_columns_of_focus_1_3_are_there() -> None:
    names = [c.name for c in focus.columns()]
    assert len(names) == len(set(names))
    assert {"AllocatedMethodId", "AllocatedMethodDetails", "AllocatedResourceId", "AllocatedResourceName",
            "AllocatedTags", "ServiceProviderName", "HostProviderName"} <= set(names)
    assert all(c.name.startswith("x_") == (c.level == "Custom") for c in focus.columns())


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_text_of_strangers_is_no_formula(text: str) -> None:
    assert defused(text) == f"'{text}"
    assert defused("chat-1") == "chat-1"


def test_a_file_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.html", "x")


def test_rows_that_fail_midway_leave_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[dict]:
        yield {"a": "1"}
        raise RuntimeError("gone")

    file = tmp_path / "x.csv"
    for write in (write_csv, write_parquet):
        with pytest.raises(RuntimeError):
            write(file, [Column("a", "text")], failing())
        assert list(tmp_path.iterdir()) == []


def test_an_hour_begins_where_the_sample_does() -> None:
    assert START % 3600 == 0
