"""The dashboards are whole: panels do not overlap, ask for metrics that exist, and the shipped files are current."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from serving.fleet.slos import Slo
from serving.telemetry.dashboards.build import Dashboard, as_grafana, dashboards
from serving.telemetry.metrics import BY_NAME
from serving.telemetry.rules.build import rule_file

SHIPPED = Path(__file__).resolve().parents[2] / "helm" / "flotilla" / "dashboards"
RECORDED = {rule["record"] for group in rule_file({"qwen": Slo(ttft_ms=1, tpot_ms=1)}, 1)["groups"]
            for rule in group["rules"] if "record" in rule}
UNITS = {"s", "short", "percentunit", "currencyUSD", "bytes", "reqps"}
PART_OF_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(params=dashboards(), ids=lambda board: board.uid)
def board(request: pytest.FixtureRequest) -> Dashboard:
    return request.param


def test_panels_fill_their_rows_and_do_not_overlap(board: Dashboard) -> None:
    places = [panel["gridPos"] for panel in as_grafana(board)["panels"]]
    for a, b in combinations(places, 2):
        assert (a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
                or b["y"] + b["h"] <= a["y"]), f"{a} and {b} overlap"
    for y in {place["y"] for place in places}:
        assert sum(place["w"] for place in places if place["y"] == y) == 24


def test_queries_ask_for_what_exists(board: Dashboard) -> None:
    for panel in board.panels:
        assert panel.unit in UNITS
        for query in panel.queries.values():
            for name in re.findall(r"\bflotilla_\w+", query):
                known = BY_NAME.get(name) or BY_NAME[PART_OF_HISTOGRAM.sub("", name)]
                labels = set(re.findall(r"(\w+)=~?\"", re.findall(rf"{name}(\{{[^}}]*\}})?", query)[0]))
                assert labels <= {*known.labels, "le"}, f"{panel.title}: {name} has no {labels - set(known.labels)}"
            assert set(re.findall(r"\bflotilla:[\w:]+", query)) <= RECORDED


def test_choices_that_a_query_uses_are_offered(board: Dashboard) -> None:
    text = json.dumps(as_grafana(board)["panels"])
    assert set(re.findall(r"\$(\w+)", text)) - {"__rate_interval"} == set(board.choices)


def test_ids_are_unique(board: Dashboard) -> None:
    made = as_grafana(board)
    numbers = [panel["id"] for panel in made["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert len({b.uid for b in dashboards()}) == len(dashboards())


def test_the_shipped_files_are_current() -> None:
    shipped = {file.name: json.loads(file.read_text()) for file in SHIPPED.glob("*.json")}
    made = {f"{board.uid}.json": as_grafana(board) for board in dashboards()}
    assert shipped == made, "make them anew: flotilla dashboards --out helm/flotilla/dashboards"
