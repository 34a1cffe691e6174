"""What a fleet file says about money: prices of accelerators, who pays for idle time, comparators, the ledger."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet.accelerator_book import COLUMNS
from serving.fleet.catalogue import Fleet, comparisons, load, price_book
from serving.fleet.config import parse
from serving.fleet.money import PriceLine
from serving.fleet.records import Tokens
from serving.plan import Changes
from serving.plan import fleet as planned

BOOK = f"""\
{",".join(COLUMNS)}
H100,nebius,,,on_demand,2.95,,2026-11-23T00:00:00Z,a list
H100,nebius,,,on_demand,3.10,,2027-01-01T00:00:00Z,announced
H100,nebius,,,spot,1.25,,2026-11-23T00:00:00Z,a list
H100,aws,us-east-1,p5.48xlarge,on_demand,6.88,8,2026-11-23T00:00:00Z,a list
L40S,nebius,,,spot,,,2026-11-23T00:00:00Z,not offered
"""
JANUARY = 1798761600.0
NUMBER = "    price_usd_per_hour: 0.0416\n"
GPU = FLEET.replace("prices: prices.json\n", "prices: prices.json\naccelerator_prices: accelerators.csv\n").replace(
    "    kind: cpu\n", "    kind: gpu\n    type: H100\n").replace(
    NUMBER, "    price: {provider: nebius, capacity: on_demand}\n")
FULL = FLEET.replace("tenants:\n", """\
costs:
  idle: owner
  max_loading: 3.5
  window_h: 6
  overhead: {gateway_usd_per_hour: 0.01, head_usd_per_hour: 0.02, storage_usd_per_hour: 0.003}
ledger: {spool_mib: 0.5, when_full: serve_unmetered}
tenants:
""").replace("    accelerator: core\n", "    accelerator: core\n    owner: demo\n").replace(
    "      - {price: api-one, role: frontier}\n", """\
      - {price: api-one, role: frontier, batch: true}
      - {price: api-one, role: same_model_hosted, token_ratio: 1.25, token_ratio_source: measured}
      - {price: api-two, role: cheapest_proprietary}
""")
LABELS = {"node.kubernetes.io/instance-type": "p5.48xlarge", "topology.kubernetes.io/region": "us-east-1",
          "eks.amazonaws.com/capacityType": "ON_DEMAND"}


def read(folder: Path, text: str) -> Fleet:
    (folder / "accelerators.csv").write_text(BOOK)
    return load(write(folder, text))


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    fleet = read(tmp_path, FLEET)
    assert (fleet.costs.idle, fleet.costs.max_loading, fleet.costs.window_h) == ("pro_rata", 10.0, 24.0)
    overhead = fleet.costs.overhead
    assert [overhead.nanousd_per_hour(role) for role in ("gateway", "head", "storage")] == [0, 0, 0]
    assert (fleet.ledger.spool_bytes, fleet.ledger.when_full) == (256 * 1024 * 1024, "refuse")
    assert fleet.models["qwen"].owner is None and fleet.accelerator_book is None
    assert (fleet.models["qwen"].comparators[0].token_ratio, fleet.models["qwen"].comparators[0].batch) == (1, False)


def test_a_file_says_all_of_it(tmp_path: Path) -> None:
    fleet = read(tmp_path, FULL)
    assert (fleet.costs.idle, fleet.costs.max_loading, fleet.costs.window_h) == ("owner", 3.5, 6.0)
    overhead = fleet.costs.overhead
    assert [overhead.nanousd_per_hour(role) for role in ("gateway", "head", "storage")] == [
        10_000_000, 20_000_000, 3_000_000]
    assert (fleet.ledger.spool_bytes, fleet.ledger.when_full) == (512 * 1024, "serve_unmetered")
    assert fleet.models["llama"].owner == "demo"


def test_comparators_become_comparisons_with_prices(tmp_path: Path) -> None:
    fleet, book = read(tmp_path, FULL), price_book(read(tmp_path, FULL), tmp_path / "fleet.yaml")
    batch, same, cheap = comparisons(fleet, "qwen", book)
    assert [c.name for c in (batch, same, cheap)] == ["api-one (batch)", "api-one", "api-two"]
    assert (same.role, same.token_ratio_source) == ("same_model_hosted", "measured")
    assert [c.nanousd(Tokens(100, 0, 0)) for c in (batch, same, cheap)] == [50_000, 125_000, 200_000]
    assert comparisons(fleet, "llama", book) == ()


def test_a_price_is_the_books_times_the_devices(tmp_path: Path) -> None:
    fleet = read(tmp_path, GPU)
    assert (fleet.variant("llama"), fleet.variant("qwen")) == ("core", "core x2")
    assert fleet.price_line("llama").changes == ((0.0, 2_950_000_000), (JANUARY, 3_100_000_000))
    assert fleet.price_line("qwen").changes == ((0.0, 5_900_000_000), (JANUARY, 6_200_000_000))
    # without a moment the newest, with one what holds then
    assert fleet.price_nanousd_per_hour("llama") == 3_100_000_000
    assert fleet.price_nanousd_per_hour("llama", JANUARY - 1) == 2_950_000_000
    assert read(tmp_path, GPU.replace("on_demand", "spot")).price_nanousd_per_hour("llama") == 1_250_000_000


def test_a_number_in_the_file_holds_for_all_time(tmp_path: Path) -> None:
    assert read(tmp_path, FLEET).price_line("llama") == PriceLine.fixed(41_600_000)
    assert parse(FLEET, "fleet.yaml", Fleet).price_line("qwen") == PriceLine.fixed(83_200_000)


def test_a_price_by_labels_waits_for_the_node(tmp_path: Path) -> None:
    fleet = read(tmp_path, GPU.replace("{provider: nebius, capacity: on_demand}", "{from_node_labels: true}"))
    assert fleet.price_line("qwen", LABELS) == PriceLine.fixed(13_760_000_000)
    with pytest.raises(ConfigError, match=r"^accelerators\.core\.price: the price of H100 comes from the labels"):
        fleet.price_line("qwen")


def test_prices_travel_with_the_fleet(tmp_path: Path) -> None:
    fleet = read(tmp_path, GPU)
    changed = planned(tmp_path / "fleet.yaml", Changes({"qwen": "org/other"}, port=1))
    for copy in (pickle.loads(pickle.dumps(fleet)), changed):
        assert copy.price_line("qwen") == fleet.price_line("qwen")


def test_the_schema_tells_numbers_from_text() -> None:
    parts = Fleet.model_json_schema()["$defs"]
    assert parts["Comparator"]["properties"]["token_ratio"]["type"] == "number"
    assert parts["Comparator"]["properties"]["token_ratio"]["default"] == 1
    assert parts["OverheadSpec"]["properties"]["head_usd_per_hour"]["default"] == 0
    for part in ("CostSpec", "OverheadSpec", "LedgerSpec", "Comparator", "PriceReference", "NodePrice"):
        assert parts[part]["description"] and parts[part]["additionalProperties"] is False
    assert all("description" in field or "$ref" in field
               for part in ("CostSpec", "LedgerSpec", "Comparator", "PriceReference", "NodePrice")
               for field in parts[part]["properties"].values())


REFERENCE = "{provider: nebius, capacity: on_demand}"
# (the file, what stands in it, what is put there, part of the line that the message names, what it must say)
WRONG = {
    "no price at all": (FLEET, NUMBER, "", "core:", ["exactly one of price_usd_per_hour", "has neither"]),
    "two prices": (GPU, REFERENCE, f"{REFERENCE}\n{NUMBER}", "core:", ["exactly one of", "has both"]),
    "a price of nothing": (FLEET, "0.0416", "0", "price_usd_per_hour", ["must be above 0", "such as 0.000001"]),
    "a price of nothing, as a float": (FLEET, "0.0416", "-0.0", "price_usd_per_hour", ["must be above 0"]),
    "a price below a nano-dollar": (FLEET, "0.0416", "0.00000000001", "price_usd_per_hour", ["9 decimal places"]),
    "a price without a book": (GPU, "accelerator_prices: accelerators.csv\n", "", "price: {",
                               ["accelerators.core.price", "add accelerator_prices:"]),
    "a book that is not there": (GPU, "accelerators.csv", "none.csv", "", ["none.csv", "cannot be read"]),
    "a book that is none": (GPU, "accelerators.csv", "prices.json", "", ["prices.json:1: not an accelerator price"]),
    "a price that is not there": (GPU, "provider: nebius", "accelerator: H10, provider: nebius", "price: {",
                                  ["accelerators.csv has no price of 'H10'", "did you mean 'H100'?"]),
    "a provider that is not there": (GPU, "provider: nebius", "provider: nebus", "price: {", ["'nebius'?", "line 2"]),
    "spot that is not offered": (GPU, REFERENCE, "{provider: aws, capacity: spot}", "price: {",
                                 ["no spot price of H100 at aws", "$6.88 (line 5)"]),
    "a price that is blank": (GPU, REFERENCE, "{accelerator: L40S, provider: nebius, capacity: spot}", "price: {",
                              ["line 6: L40S at nebius is not offered spot"]),
    "no row for labels": (GPU, REFERENCE, "{accelerator: L40S, from_node_labels: true}", "price: {",
                          ["no row", "'L40S' names an instance type"]),
    "a mapping to nothing": (GPU, REFERENCE, '{from_node_labels: true, nodes: [{labels: {a: b}, provider: nebus}]}',
                             "price: {", ["the provider 'nebus'", "'nebius'?"]),
    "a mapping of nothing": (GPU, REFERENCE, "{from_node_labels: true, nodes: [{labels: {}, provider: nebius}]}",
                             "price: {", ["price.nodes.0.labels", "at least 1"]),
    "a mapping without labels": (GPU, REFERENCE, "{provider: nebius, nodes: [{labels: {a: b}, provider: nebius}]}",
                                 "price: {", ["nodes: is for from_node_labels"]),
    "labels and a name": (GPU, REFERENCE, "{from_node_labels: true, provider: nebius, capacity: spot}", "price: {",
                          ["leaves provider, capacity to the node"]),
    "no provider": (GPU, REFERENCE, "{capacity: spot}", "price: {", ["provider is missing", "from_node_labels: true"]),
    "no accelerator": (GPU, "    type: H100\n", "", "core:",
                       ["price.accelerator is missing", "give the profile a type"]),
    "another capacity": (GPU, "on_demand", "reserved", "price: {", ["'on_demand' or 'spot'", "found 'reserved'"]),
    "an unknown key of a price": (GPU, "capacity: on", "capasity: on", "price: {", ["did you mean 'capacity'?"]),
    "labels that are text": (GPU, REFERENCE, '{from_node_labels: "yes"}', "price: {", ["boolean", "'yes'"]),
    "an unknown key of costs": (FULL, "max_loading", "max_load", "max_load", ["did you mean 'max_loading'?"]),
    "another policy": (FULL, "idle: owner", "idle: tenant", "idle:", ["'pro_rata'", "'owner'", "found 'tenant'"]),
    "less than no loading": (FULL, "3.5", "-1", "max_loading", ["greater than or equal to 0"]),
    "no window": (FULL, "window_h: 6", "window_h: 0", "window_h", ["greater than 0"]),
    "a negative overhead": (FULL, "0.02,", "-0.02,", "overhead", ["head_usd_per_hour", "greater than or equal to 0"]),
    "an overhead that is text": (FULL, "0.02,", "cheap,", "overhead", ["number of US dollars", "'cheap'"]),
    "an unknown overhead": (FULL, "head_usd", "hat_usd", "overhead", ["did you mean 'head_usd_per_hour'?"]),
    "an owner who is not there": (FULL, "owner: demo", "owner: dmo", "owner: dmo", ["models.qwen.owner", "'demo'?"]),
    "no owner to charge": (FULL, "    owner: demo\n", "", "  qwen:",
                           ["costs.idle is owner", "'qwen', of which 1 always runs, needs an owner"]),
    "no spool": (FULL, "spool_mib: 0.5", "spool_mib: 0", "ledger", ["spool_mib", "greater than 0"]),
    "nothing to do when full": (FULL, "serve_unmetered", "drop", "ledger", ["'refuse' or 'serve_unmetered'", "'drop'"]),
    "a role twice": (FULL, "same_model_hosted", "frontier", "token_ratio:",
                     ["comparators.1.role", "is frontier already", "one of each role"]),
    "a price twice": (FULL, "api-two", "api-one", "cheapest", ["comparators.2.price", "compared with already"]),
    "batch prices that are not there": (FULL, "cheapest_proprietary}", "cheapest_proprietary, batch: true}", "cheapest",
                                        ["comparators.2.batch", "'api-two' has no batch prices"]),
    "a comparator without price": (FULL, "api-two", "images", "images",
                                   ["'images' stands in the price book but has no input_cost_per_token"]),
    "a ratio without source": (FULL, ", token_ratio_source: measured", "", "token_ratio:",
                               ["token_ratio 1.25 needs token_ratio_source", "flotilla prices ratio"]),
    "a ratio of nothing": (FULL, "1.25", "0", "token_ratio:", ["token_ratio", "greater than 0"]),
    "a ratio beyond reason": (FULL, "1.25", "125", "token_ratio:", ["less than or equal to 100"]),
    "a ratio that is text": (FULL, "1.25", "much", "token_ratio:", ["number of tokens there per token here"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    text, right, put, line, said = WRONG[name]
    assert right in text
    text = text.replace(right, put, 1)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert not line or f"{tmp_path / 'fleet.yaml'}:{line_of(text, line)}: " in message
    for part in said:
        assert part in message


def test_a_model_that_may_be_at_zero_needs_no_owner(tmp_path: Path) -> None:
    text = FULL.replace("    owner: demo\n", "    replicas: {min: 0}\n", 1)
    assert read(tmp_path, text).models["qwen"].owner is None


def test_a_tiny_price_is_a_price(tmp_path: Path) -> None:
    assert read(tmp_path, FLEET.replace("0.0416", "0.000000001")).price_nanousd_per_hour("llama") == 1
