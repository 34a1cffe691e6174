"""The page: whole, offline, small, readable for those who do not see it, and safe from names."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from serving.costs import figures, svg
from serving.costs.breakeven import break_even
from serving.costs.page import Elsewhere, Even, Page, Part, render
from serving.fleet.records import BUCKETS


def part(name: str, direct: int = 5_000_000, requests: int = 10) -> Part:
    return Part(name, dict.fromkeys(BUCKETS, 0) | {"direct": direct, "idle": 7_000_000_000}, requests)


EVEN = break_even("qwen", 2.95, 1.3, 28.8, 3.0, {"hosted": 1.9e-4, "cheap": 1.8e-4, "best": 1.8e-3},
                  {"hosted": "same_model_hosted", "cheap": "cheapest_proprietary", "best": "frontier"})
PAGE = Page("laptop", "since the ledger began", "2026-11-24 12:00 UTC", (part("qwen"), part("llama", 0)),
            tuple(part(f"2026-11-{d:02d}") for d in range(1, 25)),
            (Elsewhere("qwen", 1e-6, 2e-6, 3e-4, (("hosted", "same_model_hosted", 1.9e-4),)),),
            (Even("qwen", "about", EVEN), Even("llama", "", None, "no fit yet")), "2026-11-23-abcd", "pro rata",
            14_010_000_000 - 5_000_000)


class Reader(HTMLParser):
    """Counts tags and fails on what is not closed in order."""

    VOID = {"meta", "line", "rect", "circle", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID or (tag in ("line", "rect", "circle") and f"<{tag}" in self.get_starttag_text()
                                    and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    text = render(PAGE)
    reader = read(text)
    assert "script" not in reader.count and "link" not in reader.count and "img" not in reader.count
    assert not re.search(r"https?://|url\(", text)
    assert len(text) < 1_000_000
    assert len(reader.ids) == len(set(reader.ids))


def test_every_drawing_has_a_title_and_a_description_and_a_table() -> None:
    text = render(PAGE)
    drawings = re.findall(r"<svg [^>]*aria-labelledby=\"([^\" ]+) ([^\"]+)\"", text)
    assert len(drawings) == text.count("<svg ") == 6
    for title, said in drawings:
        assert f'<title id="{title}">' in text and f'<desc id="{said}">' in text
    assert text.count("<table>") == text.count("<caption>") == 4


def test_names_from_outside_are_text() -> None:
    evil = '<img src=x onerror="alert(1)">'
    text = render(replace(PAGE, fleet=evil, models=(part(evil),), evens=(Even(evil, evil, None, evil),),
                          elsewhere=(Elsewhere(evil, 1.0, 1.0, 1.0, ((evil, evil, 1.0),)),), policy=evil,
                          notes=(evil,)))
    assert "<img" not in text and "&lt;img" in text
    read(text)


def test_the_page_says_whether_its_parts_are_the_bill() -> None:
    total = sum(p.total for p in PAGE.models)
    assert "all parts add up to it" in render(replace(PAGE, bill_nanousd=total))
    assert "but the meters say" in render(replace(PAGE, bill_nanousd=total + 10**9))
    assert "of the time shown" in render(replace(PAGE, bill_nanousd=None))


def test_what_cannot_be_is_called_impossible_and_a_missing_fit_is_told() -> None:
    text = render(PAGE)
    assert "impossible" in text and "No break-even: no fit yet." in text


def test_an_empty_fleet_still_makes_a_page() -> None:
    read(render(Page("x", "now", "now", (), (), (), (), "none", "", 0)))


def test_four_hundred_days_of_many_models_stay_below_a_megabyte() -> None:
    days = tuple(part(f"2026-{m:02d}-{d:02d}") for m in range(1, 13) for d in range(1, 29))
    models = tuple(part(f"model-{i}") for i in range(40))
    evens = tuple(Even(f"model-{i}", "about", EVEN) for i in range(40))
    assert len(render(replace(PAGE, days=days, models=models, evens=evens))) < 1_000_000


def test_the_curve_meets_a_line_where_break_even_is() -> None:
    """Read off the drawing: the curve's height at u* is the line's."""
    level = EVEN.against[0]
    drawn = svg.cost_curve(EVEN.usd_at, [svg.Level("x", level.usd_per_request)], level.breakeven, 800, "t", "k")
    at = float(re.search(r'class="level"[^>]* y1="([\d.]+)"', drawn)[1])
    now = float(re.search(r'class="now" cx="[\d.]+" cy="([\d.]+)"', drawn)[1])
    assert now == pytest.approx(at, abs=0.2)


def test_bars_are_as_long_as_their_amounts() -> None:
    drawn = svg.stacked_rows([svg.Bar("a", (3.0, 1.0)), svg.Bar("b", (2.0, 0.0))], ["x", "y"], 482, "t", "k")
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)" height="18"', drawn)]
    assert widths == [300.0, 100.0, 200.0]


@pytest.mark.parametrize(("high", "expected"), [(0, [0.0, 1.0]), (9.5, [0, 2.5, 5.0, 7.5, 10.0]), (4, [0, 1, 2, 3, 4])])
def test_ticks_are_round_and_reach_the_highest(high: float, expected: list[float]) -> None:
    assert svg.ticks(high, 4) == expected


@pytest.mark.parametrize(("share", "text"), [
    (0.195, "19.5%"), (0, "0%"), (None, "–"), (0.00016, "0.016%"), (1.2, "120%"), (2e-8, "<0.0001%"), (-0.005, "-0.5%"),
])
def test_percentages_stay_readable(share: float | None, text: str) -> None:
    assert figures.percent(share) == text


@pytest.mark.parametrize(("share", "text"), [
    (0.9, "90% cheaper"), (0.9991, "99.9% cheaper"), (-0.5, "50% dearer"), (-1.3, "2.3× the price"), (None, "–"),
    (-500, "501× the price"),
])
def test_savings_are_told_in_words(share: float | None, text: str) -> None:
    assert figures.verdict(share) == text


@pytest.mark.parametrize(("nanousd", "text"), [(1, "0.000000001"), (12_345_678_901, "12.345678901"),
                                               (-5, "-0.000000005")])
def test_exact_amounts_have_all_nine_digits(nanousd: int, text: str) -> None:
    assert figures.exact(nanousd) == text


def test_amounts_of_a_table_share_their_digits_and_none_is_lost() -> None:
    text = figures.aligned([14_292_336_932])
    assert [text(v) for v in (14_292_336_932, 50_000, 1_000, 0)] == ["14.292", "<0.001", "<0.001", "0"]
