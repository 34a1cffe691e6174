"""The accelerator price book: what is read, what is refused, which row counts and from when."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigError
from serving.fleet.accelerator_book import COLUMNS, AcceleratorBook, parse

SHIPPED = Path(__file__).parents[2] / "deployments/prices/accelerators.csv"
HEAD = ",".join(COLUMNS)
NOW, LATER = "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"
JANUARY = 1798761600.0
BOOK = f"""\
# a comment, with commas, and "quotes

{HEAD}
H100,aws,us-east-1,p5.48xlarge,on_demand,6.88,8,{NOW},a list
H100,aws,us-east-1,p5.48xlarge,spot,2.12,8,{NOW},a list
H100,aws,eu-north-1,p5.48xlarge,on_demand,7.50,8,{NOW},a list
H100,nebius,,,on_demand,2.95,,{NOW},"a list, by hand"
H100,nebius,,,on_demand,3.10,,{LATER},announced
H100,nebius,,,spot,1.25,,{NOW},a list
H100,lambda,,,spot,,,{NOW},not offered
B200,lambda,,,on_demand,6.69,,{NOW},a list
"""


def book(text: str = BOOK) -> AcceleratorBook:
    return parse(text, "prices.csv")


def test_a_row_is_read_with_its_line() -> None:
    rows = book().rows
    assert len(rows) == 8
    first, hand = rows[0], rows[3]
    assert (first.accelerator, first.provider, first.region, first.instance_type) == (
        "H100", "aws", "us-east-1", "p5.48xlarge")
    assert (first.capacity, first.usd_per_hour, first.devices_per_instance) == ("on_demand", Decimal("6.88"), 8)
    assert (first.since, first.line, hand.source, hand.line) == (NOW, 4, "a list, by hand", 7)
    assert hand.devices_per_instance is None and rows[6].usd_per_hour is None


def test_a_version_tells_the_newest_date_and_the_content() -> None:
    assert book().version.startswith("2027-01-01-") and book().version == book().version
    assert book().version != book(BOOK.replace("6.69", "6.70")).version
    assert parse(HEAD, "b").version.startswith("empty-")


def test_a_later_row_replaces_an_earlier_one_from_its_date_on() -> None:
    found = book()
    line = found.line(found.find("H100", "nebius", None, None, "on_demand"))
    assert line.changes == ((0.0, 2_950_000_000), (JANUARY, 3_100_000_000))
    assert (line.at(JANUARY - 0.001), line.at(JANUARY)) == (2_950_000_000, 3_100_000_000)


def test_the_order_of_the_lines_means_nothing() -> None:
    head, *rows = BOOK.splitlines()[2:]
    turned = book("\n".join([head, *reversed(rows)]))
    assert turned.line(turned.find("H100", "nebius", None, None, "on_demand")).changes[1][0] == JANUARY


def test_the_same_price_read_again_is_no_change() -> None:
    found = book(BOOK.replace("3.10", "2.95"))
    assert found.line(found.find("H100", "nebius", None, None, "on_demand")).changes == ((0.0, 2_950_000_000),)


@given(st.lists(st.tuples(st.integers(1, 10**13), st.integers(1, 28)), min_size=1, max_size=8,
                unique_by=lambda row: row[1]))
def test_a_price_line_says_what_the_newest_row_said(rows: list[tuple[int, int]]) -> None:
    text = "\n".join(f"X,p,,,spot,{nano / 10**9:.9f},,2026-12-{day:02}T00:00:00Z,s" for nano, day in rows)
    found = book(f"{HEAD}\n{text}\n")
    line = found.line(found.find("X", "p", None, None, "spot"))
    for nano, day in rows:
        at = next(row.valid_from for row in found.rows if f"-{day:02}T" in row.since)
        assert line.at(at) == line.at(at + 3_600) == round(Decimal(f"{nano / 10**9:.9f}") * 10**9)


def test_a_region_without_a_row_of_its_own_pays_the_price_of_any_region() -> None:
    found = book()
    assert found.find("H100", "nebius", "eu-west1", None, "spot")[0].line == 9
    assert found.find("H100", "aws", "eu-north-1", None, "on_demand")[0].line == 6


# (accelerator, provider, region, instance type, capacity), what the message must say
MISSING = {
    "no such accelerator": (("H10", "aws", None, None, "spot"), ["no price of 'H10'", "did you mean 'H100'?"]),
    "nothing like it": (("zzz", "aws", None, None, "spot"), ["'zzz'", "known: B200, H100"]),
    "no such provider": (("H100", "nebus", None, None, "spot"),
                         ["H100 for the provider 'nebus'", "did you mean 'nebius'?", "(line 4)"]),
    "no such region": (("H100", "aws", "us-east-2", None, "on_demand"),
                       ["H100 at aws for the region 'us-east-2'", "did you mean 'us-east-1'?", "line 6"]),
    "no such instance type": (("H100", "aws", None, "p5.4xlarge", "on_demand"),
                              ["H100 for the instance type 'p5.4xlarge'", "did you mean 'p5.48xlarge'?"]),
    "an instance type of another": (("B200", "aws", None, "p5.48xlarge", "on_demand"),
                                    ["B200 for the instance type 'p5.48xlarge'", "that one has H100"]),
    "not offered as spot": (("B200", "lambda", None, None, "spot"),
                            ["no spot price of B200 at lambda", "B200 lambda on_demand $6.69 (line 11)"]),
    "left blank": (("H100", "lambda", None, None, "spot"),
                   [f"line 10: H100 at lambda is not offered spot from {NOW} on: the price is blank",
                    "H100 nebius spot $1.25 (line 9)"]),
    "several": (("H100", "aws", None, "p5.48xlarge", "on_demand"),
                ["several on_demand prices", "(line 4)", "(line 6)", "say provider, region or instance_type"]),
    "several providers": (("H100", None, None, None, "spot"), ["several spot prices of H100", "(line 5)", "(line 9)"]),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_price_that_is_missing_is_an_error_with_the_nearest_there_are(name: str) -> None:
    asked, said = MISSING[name]
    with pytest.raises(ConfigError) as caught:
        book().find(*asked)  # type: ignore[arg-type]
    for part in ("prices.csv", *said):
        assert part in str(caught.value)


ROW = f"H100,verda,eu,h,spot,1.5,4,{NOW},by hand"
# what stands in the row, what is put there, what the message must say
WRONG = {
    "too few columns": (",by hand", "", ["has 8 columns instead of 9", "double quotes"]),
    "too many columns": ("by hand", "by hand, on a day", ["has 10 columns instead of 9"]),
    "no accelerator": ("H100", "", ["accelerator is empty"]),
    "no provider": ("verda", " ", ["provider is empty"]),
    "no source": ("by hand", "", ["source is empty"]),
    "no capacity": ("spot", "", ["capacity is empty"]),
    "another capacity": ("spot", "reserved", ["capacity is 'reserved'", "on_demand or spot"]),
    "a price of nothing": ("1.5", "0", ["usd_per_hour is '0'", "above 0"]),
    "a negative price": ("1.5", "-1.5", ["usd_per_hour is '-1.5'", "above 0"]),
    "a price that is text": ("1.5", "cheap", ["usd_per_hour is 'cheap'"]),
    "a price without end": ("1.5", "inf", ["usd_per_hour is 'inf'"]),
    "a price that is no number": ("1.5", "nan", ["usd_per_hour is 'nan'"]),
    "a price beyond reason": ("1.5", "10001", ["at most 10000"]),
    "a price below a nano-dollar": ("1.5", "1.0000000005", ["9 decimals at most"]),
    "no devices": (",4,", ",0,", ["devices_per_instance is '0'"]),
    "devices that are text": (",4,", ",four,", ["devices_per_instance is 'four'"]),
    "devices without end": (",4,", f",{'9' * 5000},", ["devices_per_instance is"]),
    "devices of no instance": ("eu,h,", "eu,,", ["belong together"]),
    "an instance without devices": (",4,", ",,", ["belong together"]),
    "a date that is text": (NOW, "soon", ["valid_from is 'soon'", "2026-11-23T00:00:00Z"]),
    "a date without time zone": (NOW, "2026-11-23T00:00:00", ["valid_from is", "UTC"]),
    "a date in another time zone": (NOW, "2026-11-23T00:00:00+01:00", ["valid_from is", "UTC"]),
    "a quote without end": ("verda", '"verda', ["has 2 columns instead of 9"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_refused_with_its_line(name: str) -> None:
    right, put, said = WRONG[name]
    assert parse(f"{HEAD}\n{ROW}\n", "b.csv").rows[0].usd_per_hour == Decimal("1.5")
    text = f"{HEAD}\n# here\n{ROW.replace(right, put)}\n"
    with pytest.raises(ConfigError) as caught:
        parse(text, "b.csv")
    for part in ("b.csv:3: ", *said):
        assert part in str(caught.value)


def test_two_prices_from_one_moment_on_are_refused_with_both_lines() -> None:
    with pytest.raises(ConfigError, match=r"b\.csv:3: the same thing has a price from .* in line 2 already"):
        parse(f"{HEAD}\n{ROW}\n{ROW.replace('1.5', '1.6')}\n", "b.csv")


@pytest.mark.parametrize("text", ["", "# nothing\n", "a,b\n", HEAD.replace("region", "place"), ROW])
def test_what_is_no_accelerator_price_book(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^b\.csv(:1)?: not an accelerator price book; its first row must be"):
        parse(text, "b.csv")


@given(st.text("aH1,\n\"# .-:TZ0", max_size=80))
def test_whatever_stands_in_the_file_the_answer_is_a_book_or_a_message(text: str) -> None:
    try:
        parse(f"{HEAD}\n{text}", "b.csv")
    except ConfigError as error:
        assert str(error).startswith("b.csv:")


def test_the_shipped_book_has_a_price_or_a_blank_and_a_source_for_each() -> None:
    found = parse(SHIPPED.read_text(), "accelerators.csv")
    assert len(found.rows) == 26 and all("SkyPilot" in row.source for row in found.rows)
    assert [str(row) for row in found.rows if row.usd_per_hour is None] == [
        "B200 lambda spot not offered (line 19)", "L40S nebius spot not offered (line 27)"]
    line = found.line(found.find("H100", "nebius", None, None, "on_demand"))
    assert line.changes == ((0.0, 2_950_000_000),)
