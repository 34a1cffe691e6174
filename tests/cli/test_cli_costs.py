"""The cost commands over a real ledger: what they print is what the ledger holds, and it adds up."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli.main import app
from serving.errors import ConfigError
from serving.fleet.attribution import Work
from serving.fleet.catalogue import comparisons, load, price_book
from serving.fleet.records import Tokens
from serving.ledger import sums
from serving.ledger.store import Ledger

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "costs"))
from cost_samples import Replica, overhead  # noqa: E402 - the samples of the room next door

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "deployments" / "fleets" / "laptop.yaml"
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose ledger holds a fleet: a fitted replica, one without a fit, a gateway, a head node."""
    folder = tmp_path_factory.mktemp("state")
    fleet = load(FLEET)
    book = price_book(fleet, FLEET)
    ledger = Ledger.open(folder / "ledger.db")
    qwen = Replica("qwen-1", "qwen", fleet.variant("qwen"), compared=comparisons(fleet, "qwen", book))
    qwen.ready(42.5)
    for batch in range(12):
        qwen.idle(qwen.now + 600.125)
        qwen.serve([f"flo-{batch}-{i}" for i in range(4)], 100 + 40 * batch, 20, tenant=("search", "agents")[batch % 2])
    qwen.step([Work("flo-gone", 300, 0, "prefill")])
    qwen.end("flo-gone", "aborted", Tokens(300, 0, 1), "search", "mine")
    qwen.idle(90_000)
    llama = Replica("llama-1", "llama", fleet.variant("llama"))
    llama.ready(30)
    llama.serve(["flo-llama"], 50, 10)
    for replica in (qwen, llama):
        ledger.write_reading(replica.reading())
        ledger.write_requests(replica.requests.values())
    ledger.write_reading(overhead(hours=25))
    ledger.write_reading(overhead("head", 25, 50_000_000))
    return folder


@pytest.fixture
def flotilla(state: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `flotilla …` on that ledger; errors come out as they were raised."""
    monkeypatch.setenv("FLOTILLA_STATE_DIR", str(state))
    monkeypatch.setenv("FLOTILLA_FLEET", str(FLEET))

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


def whole(state: Path) -> int:
    """The bill by the ledger's intervals, nano-USD."""
    return sum(i.record.cold_nanousd + i.record.idle_nanousd + i.record.busy_nanousd + i.record.overhead_nanousd
               for i in sums.intervals(Ledger.open(state / "ledger.db")))


def test_the_overview_has_three_bases_and_three_comparators(flotilla: Run) -> None:
    told = json.loads(flotilla("cost", "--json").stdout)
    qwen = told["models"]["qwen"]
    cost = qwen["cost_per_request_usd"]
    assert cost["direct"] < cost["direct_and_waste"] < cost["fully_loaded"]
    assert {c["role"] for c in qwen["compared"].values()} == {"same_model_hosted", "cheapest_proprietary", "frontier"}
    for c in qwen["compared"].values():
        assert c["saving"] == pytest.approx(1 - cost["fully_loaded"] / c["usd_per_request"])
    assert told["residual_nanousd"] == 0 and told["price_book"]["version"]
    assert told["models"]["qwen"]["step_models"]["laptop-core"]["steps"] > 128
    assert told["models"]["llama"]["step_models"]["laptop-core"] is None


def test_the_fully_loaded_basis_over_all_requests_is_the_whole_bill(flotilla: Run, state: Path) -> None:
    models = json.loads(flotilla("cost", "--json").stdout)["models"]
    loaded = sum(m["cost_per_request_usd"]["fully_loaded"] * m["requests"] for n, m in models.items() if n)
    assert loaded == pytest.approx(whole(state) / 1e9)


@pytest.mark.parametrize("arguments", [
    (), ("--by", "model"), ("--by", "day", "--by", "model"), ("--by", "tenant", "--by", "bucket"), ("breakeven",),
    ("explain", "flo-gone"), ("reconcile",),
])
def test_tables_fit_80_columns(flotilla: Run, arguments: tuple[str, ...]) -> None:
    lines = flotilla("cost", *arguments).stdout.splitlines()
    assert lines and max(map(len, lines)) <= 80


def test_the_overview_says_what_it_rests_on(flotilla: Run) -> None:
    text = " ".join(flotilla("cost").stdout.split())
    assert "adds up" in text and "price book 20" in text
    assert "step model of qwen on laptop-core: fitted on" in text
    assert "step model of llama on laptop-core: no fit yet" in text


@pytest.mark.parametrize("by", [["model"], ["tenant"], ["day"], ["variant"], ["bucket"], ["day", "model", "tenant"]])
def test_rows_of_every_cut_add_up_to_the_bill(flotilla: Run, state: Path, by: list[str]) -> None:
    options = [word for name in by for word in ("--by", name)]
    told = json.loads(flotilla("cost", *options, "--json").stdout)
    assert sum(r["total_nanousd"] for r in told["rows"]) == told["total_nanousd"] == whole(state)
    assert told["bill_nanousd"] == whole(state)
    assert "= the bill" in flotilla("cost", *options).stdout


def test_a_cut_of_some_days_leaves_the_others_out(flotilla: Run, state: Path) -> None:
    first = json.loads(flotilla("cost", "--by", "day", "--until", "2025-11-25", "--json").stdout)
    rest = json.loads(flotilla("cost", "--by", "day", "--since", "2025-11-25", "--json").stdout)
    assert [r["keys"]["day"] for r in first["rows"]] == ["2025-11-24"] and first["bill_nanousd"] is None
    assert first["total_nanousd"] + rest["total_nanousd"] == whole(state)


@pytest.mark.parametrize(("arguments", "says"), [
    (["cost", "--since", "yesterday", "--by", "day"], "write how long ago"),
    (["cost", "--since", "7d"], "--since and --until go with --by"),
    (["cost", "--by", "day", "--since", "2025-11-26", "--until", "2025-11-25"], "no time between them"),
    (["cost", "--json", "breakeven"], "stand after it"),
    (["cost", "explain", "flo-none"], "no request 'flo-none' in the ledger"),
    (["cost", "breakeven", "--model", "gpt"], "no model 'gpt' in the fleet file; there are: qwen"),
    (["cost", "breakeven", "--fleet", "none.yaml"], "none.yaml"),
])
def test_wrong_arguments_are_told_with_what_is_right(flotilla: Run, arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as found:
        flotilla(*arguments)
    assert says in str(found.value)


def test_explain_tells_a_request_by_either_id(flotilla: Run) -> None:
    told = json.loads(flotilla("cost", "explain", "flo-gone", "--json").stdout)
    assert json.loads(flotilla("cost", "explain", "mine", "--json").stdout) == told
    (replica,) = told["replicas"]
    assert replica["variant"] == "laptop-core" and replica["price_nanousd_per_hour"] == 2_950_000_000
    assert [x["phase"] for x in replica["lines"]] == ["prefill"]
    assert told["nanousd"]["waste"] == sum(told["work_parts_nanousd"].values()) > 0 == told["nanousd"]["direct"]
    assert told["idle_policy"] == "pro_rata" and "the caller went away" in told["why"]
    assert {c["role"] for c in told["compared"]} == {"same_model_hosted", "cheapest_proprietary", "frontier"}


def test_explain_for_people_names_who_how_and_why(flotilla: Run) -> None:
    text = " ".join(flotilla("cost", "explain", "flo-3-2").stdout.split())
    for word in ("agents, key key_1", "qwen on laptop-core", "made up of fixed", "method step-shapley-",
                 "idle policy, pro rata", "frontier", "This request cost $", "shared with 3 others"):
        assert word in text, word


def test_breakeven_is_told_with_a_fit_and_refused_without(flotilla: Run) -> None:
    told = json.loads(flotilla("cost", "breakeven", "--json").stdout)["models"]
    qwen = told["qwen"]
    assert qwen["utilisation"] == pytest.approx(qwen["requests_per_s"] / qwen["capacity_per_s"])
    k = qwen["overhead_factor"]
    assert k == pytest.approx(1 + 25 * 0.15 / (90_000 / 3600 * 2.95), rel=0.02)
    for a in qwen["against"]:
        assert a["breakeven"] == pytest.approx(
            qwen["price_usd_per_hour"] * k / (3600 * qwen["capacity_per_s"] * a["usd_per_request"]))
    assert "no fitted step model" in told["llama"]["missing"] and "measured numbers" in told["llama"]["missing"]
    assert "none of its replicas ran" in told["deepseek-r1"]["missing"]
    text = " ".join(flotilla("cost", "breakeven", "--model", "qwen").stdout.split())
    assert "utilisation u" in text and "90% saved at" in text and "the KV cache has room" in text


@pytest.mark.parametrize(("format", "column"), [("csv", "total_usd"), ("focus", "BilledCost")])
def test_an_export_adds_up_to_the_bill(flotilla: Run, state: Path, tmp_path: Path, format: str, column: str) -> None:
    file = tmp_path / "x.csv"
    told = json.loads(flotilla("cost", "export", "--format", format, "--out", str(file), "--json").stdout)
    with open(file, newline="") as text:
        read = list(csv.DictReader(text))
    assert len(read) == told["rows"]
    assert sum(Decimal(r[column]) for r in read) * 10**9 == told["sum_nanousd"] == told["bill_nanousd"] == whole(state)


@pytest.mark.parametrize("format", ["parquet", "focus"])
def test_an_export_to_parquet_adds_up_to_the_bill(flotilla: Run, state: Path, tmp_path: Path, format: str) -> None:
    from pyarrow import parquet

    file = tmp_path / "x.parquet"
    text = flotilla("cost", "export", "--format", format, "--out", str(file)).stdout
    column = parquet.read_table(file)["BilledCost" if format == "focus" else "total_usd"]
    assert sum(column.to_pylist()) * 10**9 == whole(state) and "the sum of the rows is the bill" in text


def test_an_export_of_a_day_holds_that_day_only(flotilla: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    flotilla("cost", "export", "--out", str(file), "--since", "2025-11-25", "--until", "2025-11-26")
    with open(file, newline="") as text:
        days = {r["started_at"][:10] for r in csv.DictReader(text)}
    assert days == {"2025-11-25"}


def test_the_report_is_one_page_with_the_bill(flotilla: Run, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "cost.html"
    flotilla("cost", "report", "--out", str(file))
    text = file.read_text()
    assert "all parts add up to it" in text and text.count("<svg ") == 6 and "<script" not in text
    assert "No break-even: its replicas have no fitted step model yet" in text


def test_without_a_readable_fleet_file_reports_say_less_and_say_so(flotilla: Run, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_FLEET", str(tmp_path / "none.yaml"))
    assert "comparators are not known" in " ".join(flotilla("cost").stdout.split())
    file = tmp_path / "cost.html"
    flotilla("cost", "report", "--out", str(file))
    assert "Comparators and break-even are not known" in file.read_text()
    with pytest.raises(ConfigError, match="break-even needs the fleet file"):
        flotilla("cost", "breakeven")


def test_an_empty_ledger_says_that_there_is_nothing_yet(flotilla: Run, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_STATE_DIR", str(tmp_path))
    assert "holds no costs yet" in flotilla("cost").stdout
    for command in (["--by", "model"], ["export", "--out", str(tmp_path / "x.csv")], ["breakeven"],
                    ["report", "--out", str(tmp_path / "x.html")]):
        flotilla("cost", *command)
