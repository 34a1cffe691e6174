"""The worked example of the cost document: its inputs are read from its tables, run through the code that a replica
runs, and every figure in its tables is found again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest
from cost_samples import NS, START, Replica, by_name

from serving.costs.explain import explain
from serving.fleet.attribution import Work
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine, nanousd
from serving.fleet.prices import ApiPrice, Comparison
from serving.fleet.records import Amounts, MeterReading, Tokens
from serving.fleet.stepmodel import StepModel

DOCUMENT = Path(__file__).resolve().parents[2] / "deployments" / "docs" / "cost.md"
Table = list[dict[str, str]]


def tables(text: str) -> dict[str, Table]:
    """Tables of the example by the bold name in the line before each."""
    found = {}
    for name, body in re.findall(r"^\*\*Table ([^*]+)\*\*[^\n]*\n\n((?:\|[^\n]*\n)+)", text, re.M):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in body.splitlines()]
        found[name] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


def whole(text: str) -> int:
    return int(text.replace(",", ""))


def run(given: Mapping[str, Table]) -> tuple[Replica, MeterReading, dict[tuple[str, str], int]]:
    """The replica after the example, its reading, and what each (step, request) was charged."""
    changes = [(0.0 if i == 0 else START + float(row["from s"]), nanousd(row["USD an hour"]))
               for i, row in enumerate(given["1: prices"])]
    of = {row["part"]: float(row["ms"]) for row in given["2: step model"]}
    policy = LoadingPolicy(max_loading=2.0, window_s=86_400.0)
    replica = Replica(prices=PriceLine(tuple(changes)), policy=policy,
                      fixed=StepModel(of["fixed"], of["token"], of["attention"], of["cache"]),
                      compared=[Comparison("api", "frontier", ApiPrice("api", *map(Decimal, (
                          "0.000001", "0.000005", "0.0000001"))))])
    ready, quiet, last = (float(row["until s"]) for row in given["3: time without work"])
    replica.ready(ready)
    replica.idle(quiet)
    ends = {row["after step"]: row for row in given["5: requests"]}
    parts: dict[tuple[str, str], int] = {}
    rows = given["4: steps"]
    for step in dict.fromkeys(row["step"] for row in rows):
        lines = [row for row in rows if row["step"] == step]
        works = [Work(row["request"], whole(row["tokens"]), whole(row["context"]), row["phase"],  # type: ignore
                      whole(row["lost"])) for row in lines]
        before = {w.request_id: replica.meter.charges[w.request_id].work for w in works
                  if w.request_id in replica.meter.charges}
        first = next(row for row in lines if row["from s"])
        assert float(first["from s"]) == pytest.approx(replica.now)
        replica.now = float(first["until s"])
        replica.meter.step(round(float(first["from s"]) * NS), round(float(first["until s"]) * NS), works)
        for work in works:
            parts[step, work.request_id] = replica.meter.charges[work.request_id].work - before.get(work.request_id, 0)
        if step in ends:
            row = ends[step]
            tokens = Tokens(whole(row["prompt"]), whole(row["cached"]), whole(row["answer"]))
            replica.end(row["request"], row["outcome"], tokens)  # type: ignore[arg-type]
    replica.idle(last)
    return replica, replica.reading(), parts


@pytest.fixture(scope="module")
def given() -> dict[str, Table]:
    return tables(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_has_every_table_of_the_example(given: dict[str, Table]) -> None:
    assert list(given) == ["1: prices", "2: step model", "3: time without work", "4: steps", "5: requests",
                           "6: charges", "7: bill"]
    assert {row["request"] for row in given["6: charges"]} == {"A", "B", "C", "all"}


def test_every_share_of_a_step_is_found_again(given: dict[str, Table]) -> None:
    replica, _, parts = run(given)
    model = replica.fixed
    assert model is not None
    for row in given["4: steps"]:
        sharing = sum(other["step"] == row["step"] for other in given["4: steps"])
        due = model.part(whole(row["tokens"]), whole(row["context"]), sharing)
        assert f"{due:.3f}" == row["due ms"], row
        assert parts[row["step"], row["request"]] == whole(row["nano-USD"]), row


def test_every_amount_of_every_request_is_found_again(given: dict[str, Table]) -> None:
    _, reading, _ = run(given)
    charges = by_name(reading.charges)
    for row in given["6: charges"]:
        a = sum((c.amounts for c in charges.values()), Amounts()) if row["request"] == "all" else charges[
            row["request"]].amounts
        told = {name: whole(row[name]) for name in ("direct", "waste", "idle", "cold start", "sum")}
        assert told == {"direct": a.direct, "waste": a.waste, "idle": a.idle, "cold start": a.cold_start,
                        "sum": a.loaded}, row
        api = sum(c.compared["api"] for c in charges.values()) if row["request"] == "all" else charges[
            row["request"]].compared["api"]
        assert whole(row["at the API"]) == api, row


def test_the_bill_is_found_again_and_the_buckets_are_it(given: dict[str, Table]) -> None:
    replica, reading, _ = run(given)
    total, a = replica.meter.account.total, sum((c.amounts for c in reading.charges), Amounts())
    expected = {
        "direct": a.direct, "waste": a.waste, "idle, charged to requests": a.idle,
        "idle, charged to no request": total.idle_nanousd - a.idle, "cold start, charged to requests": a.cold_start,
        "cold start, charged to no request": total.cold_nanousd - a.cold_start, "the bill": replica.meter.total_nanousd,
    }
    assert {row["bucket"]: whole(row["nano-USD"]) for row in given["7: bill"]} == expected
    assert sum(v for k, v in expected.items() if k != "the bill") == expected["the bill"]


def test_time_without_work_costs_what_the_document_says(given: dict[str, Table]) -> None:
    _, reading, _ = run(given)
    told = [whole(row["nano-USD"]) for row in given["3: time without work"]]
    first, second = reading.intervals
    assert told == [first.cold_nanousd, first.idle_nanousd, second.idle_nanousd]
    assert [first.price_nanousd_per_hour, second.price_nanousd_per_hour] == [
        nanousd(row["USD an hour"]) for row in given["1: prices"]]


def test_the_step_in_which_the_price_changes_costs_both_prices(given: dict[str, Table]) -> None:
    _, reading, _ = run(given)
    step = [row for row in given["4: steps"] if row["step"] == "5"]
    begin, end, change = float(step[0]["from s"]), float(step[0]["until s"]), float(given["1: prices"][1]["from s"])
    before, after = (nanousd(row["USD an hour"]) / 3600 for row in given["1: prices"])
    assert begin < change < end
    assert sum(whole(row["nano-USD"]) for row in step) == round((change - begin) * before + (end - change) * after)


def test_what_the_document_says_of_b_is_what_explain_says(given: dict[str, Table]) -> None:
    replica, reading, _ = run(given)
    charge = by_name(reading.charges)["B"]
    told = explain("B", replica.requests["B"], [charge], {reading.source.source_id: reading.source}, {})
    phases = [(line.phase, line.steps, line.tokens) for line in told.replicas[0].lines]
    assert phases == [("prefill", 1, 200), ("decode", 1, 1), ("recompute", 1, 202), ("decode", 2, 2)]
    assert sum(line.nanousd for line in told.replicas[0].lines) == charge.amounts.work
    assert charge.recomputed == 201
