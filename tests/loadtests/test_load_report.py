from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO

import pytest
from load_samples import CHAT, failed, make_record, make_run, make_scenario
from rich.console import Console

from loadtests.context import BreakEven, Context, Ledger
from loadtests.metrics import quantiles
from loadtests.report import build, print_summary, render_html
from loadtests.report.__main__ import main
from loadtests.report.build import Inputs, report_of

EVIL = '<script src="http://evil/x.js">'
SCENARIO = make_scenario(models={"a": {"users": [CHAT]}, "b": {"users": [CHAT]}}, warmup_s=0.5)


def context(**changes) -> Context:
    api = {"input_usd_per_mtok": 2.0, "cached_input_usd_per_mtok": None, "output_usd_per_mtok": 10.0}
    model = {
        "source": "org/model",
        "architecture": "A",
        "accelerator": "laptop-cpu",
        "price_usd_per_hour": 0.05,
        "slo": {"ttft_ms": 150.0, "tpot_ms": 12.0},
        "random_weights": False,
        "comparators": [
            {"name": "hosted", "role": "same_model_hosted", **api},
            {"name": "gpt-5-mini", "role": "cheapest_proprietary", **api},
            {"name": "big", "role": "frontier", **api},
        ],
    }
    document = {"fleet": {"name": "laptop", "file": "f.yaml"}, "models": {"a": model | changes, "b": model}}
    return Context.model_validate(document)


LEDGER = Ledger.model_validate(
    {
        "models": {
            name: {"requests": 3, "nanousd": {"direct": 10_000, "waste": 0, "idle": 5_000, "cold_start": 0}}
            for name in ("a", "b", "other")
        },
        "residual_nanousd": 0,
    }
)
#: Two good ones and one of the warm-up for each model.
RECORDS = [
    record
    for name in "ab"
    for record in (
        make_record(model=name, scheduled=0.2, sent=0.2, warmup=True, first_content=0.9, last_content=0.95),
        make_record(model=name),
        make_record(model=name, first_content=1.12, last_content=1.22),
    )
]


def report(records=RECORDS, run=None, **changes):
    values = {"context": context(), "ledger": LEDGER} | changes
    return report_of(Inputs(run=run or make_run(SCENARIO), records=records, **values))


def test_the_contract_of_report_json():
    document = json.loads(report().model_dump_json())
    assert document["verdict"]["result"] == "pass" and document["verdict"]["reasons"]
    assert document["fleet"] == {"name": "laptop", "file": "f.yaml"}
    model = document["models"]["a"]
    assert (model["requests"], model["errors"]) == (2, 0)
    assert model["ttft_ms"]["p50"] == pytest.approx(110) and model["ttft_ms"]["p99"] == pytest.approx(119.8)
    assert model["tpot_ms"]["p50"] == pytest.approx(10)
    assert model["output_tokens_per_s"] == pytest.approx((2 * 11 + 11) / 9.5)
    assert model["cost_basis"] == "fully_loaded"
    # The ledger's window has the warm-up in it, so its three requests share the cost.
    assert model["cost_per_request_usd"] == pytest.approx(15e-6 / 3)
    assert model["cost_per_mtok_usd"] == pytest.approx(15e-6 / 93 * 1e6)
    assert model["charged_cost_per_request_usd"] == pytest.approx(0.001)
    assert model["api_cost_usd"]["gpt-5-mini"] == pytest.approx(3 * (20 * 2 + 11 * 10) / 1e6)
    assert model["savings"]["gpt-5-mini"] == pytest.approx(1 - 15e-6 / 450e-6)
    assert model["goodput_per_s"] == pytest.approx(2 / 9.5)
    totals = document["totals"]
    assert totals["requests"] == 4 and totals["cost_usd"] == pytest.approx(30e-6)
    assert set(totals["comparators"]) == {"same_model_hosted", "cheapest_proprietary", "frontier"}
    assert document["ledger"] == {"residual_usd": 0.0, "other_models_usd": pytest.approx(15e-6)}


def test_without_a_ledger_the_cost_is_as_charged_and_says_so():
    made = report(ledger=None)
    assert made.models["a"].cost_basis == "charged"
    assert made.models["a"].cost_per_request_usd == pytest.approx(0.001)
    assert any("as charged" in note for note in made.notes)


def test_without_a_context_there_are_no_objectives_and_no_comparators():
    made = report(context=None)
    assert made.verdict.result == "pass" and "no objectives" in made.verdict.reasons[0]
    assert made.models["a"].api_cost_usd == {} and made.totals.slo_attainment is None


def test_errors_fail_the_run_and_count_as_missed_objectives():
    made = report([*RECORDS, failed()])
    assert made.verdict.result == "fail"
    assert "a: 1 of 3 requests failed" in made.verdict.reasons
    assert made.models["a"].slo_attainment.ttft == pytest.approx(2 / 3)
    assert made.models["a"].ttft_ms["count"] == 2
    assert [(group.model, group.kind, group.count) for group in made.errors] == [("a", "http_500", 1)]


def test_errors_of_the_warmup_are_told_but_not_judged():
    made = report([*RECORDS, failed(warmup=True)])
    assert made.verdict.result == "pass"
    assert any("warm-up" in note and "1 requests failed" in note for note in made.notes)


@pytest.mark.parametrize(("change", "term"), [({"ttft_ms": 99.0}, "TTFT"), ({"tpot_ms": 9.9}, "TPOT")])
def test_a_missed_objective_fails_the_run(change, term):
    slo = {"ttft_ms": 150.0, "tpot_ms": 12.0} | change
    made = report(context=context(slo=slo))
    assert made.verdict.result == "fail"
    assert any(reason.startswith(f"a: {term}") for reason in made.verdict.reasons)


def test_the_goal_is_a_share_not_a_percentile():
    records = [make_record(model=name, arrival=n) for name in "ab" for n in range(9)]
    one_late = [*records, make_record(first_content=1.19), make_record(model="b")]
    assert report(one_late).verdict.result == "pass"  # nine of ten
    assert report(one_late[1:]).verdict.result == "fail"  # eight of nine


def test_the_scenarios_objectives_win():
    models = {"a": {"users": [CHAT], "slo": {"ttft_ms": 50, "tpot_ms": 50}}, "b": {"users": [CHAT]}}
    made = report(run=make_run(make_scenario(models=models)))
    assert made.models["a"].slo.ttft_ms == 50 and made.models["b"].slo.ttft_ms == 150


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dispatch_lateness_ms": quantiles([150.0])}, "dispatch lateness p99 150 ms"),
        ({"loop_lag_ms": quantiles([150.0])}, "event-loop lag p99 150 ms"),
        ({"interrupted": True}, "interrupted"),
        (
            {
                "arrivals": {
                    "scheduled": 50,
                    "sent": 47,
                    "nominal_rate_per_s": 5,
                    "requested_rate_per_s": 5,
                    "achieved_rate_per_s": 4.7,
                }
            },
            "achieved 4.70 of 5.00",
        ),
    ],
)
def test_a_generator_that_did_not_keep_up_makes_the_run_invalid(changes, reason):
    made = report([*RECORDS, failed()], run=make_run(SCENARIO, **changes))
    assert made.verdict.result == "invalid"
    assert reason in made.verdict.reasons[0]
    assert "a: 1 of 3 requests failed" in made.verdict.reasons


@pytest.mark.parametrize(("changes", "reason"), [
    ({"lost": ("worker 1 (w) died; its records since its last batch are missing",)}, "worker 1"),
    ({"workers": ({"index": 1, "host": "far", "requests": 9, "chunks": 9, "cpu_share": 0.2, "chunks_per_s": 9,
                   "clock_offset_ms": 30.0},)}, "the clock of worker 1 on far is off by up to 30 ms"),
    ({"loop_lag_ms": quantiles([150.0]), "workers": ({"index": 0, "host": "h", "requests": 9, "chunks": 9,
      "cpu_share": 0.99, "chunks_per_s": 9_000},)}, "worker 0 used 99% of a core at 9,000 chunks/s"),
])
def test_the_report_goes_by_the_same_rules_as_the_run(changes, reason):
    made = report(run=make_run(SCENARIO, **changes))
    assert made.verdict.result == "invalid" and reason in made.verdict.reasons[0]
    assert "INVALID" in Page(render_html(made)).text


def test_a_run_that_its_stop_condition_ended_fails_and_is_marked():
    made = report(run=make_run(SCENARIO, interrupted=True, stopped_by="9 requests failed, the limit is 9",
                               ended_unix=1_800_000_004.0))
    assert made.verdict.result == "fail" and made.verdict.certain
    assert "stopped early: 9 requests failed" in made.verdict.reasons[0]
    assert any("Partial results: the run ended after 4 of 10 s" in note for note in made.notes)


def test_a_closed_loop_is_said_where_it_is_read():
    made = report(run=make_run(SCENARIO, loop="closed"))
    assert any(note.startswith("Closed loop") for note in made.notes)
    assert "closed loop: a user waits" in Page(render_html(made)).text


def test_a_model_without_a_request_makes_the_run_invalid():
    made = report([record for record in RECORDS if record.model == "a" or record.warmup])
    assert made.verdict.result == "invalid" and "b got no request" in made.verdict.reasons[0]


def test_random_weights_are_said_plainly():
    assert not any("noise" in note for note in report().notes)
    note = report(context=context(random_weights=True)).notes[0]
    assert "Random weights: a." in note and "noise" in note and "nothing" in note


def test_a_ledger_that_counts_otherwise_is_noted():
    assert not any("ledger counted" in note for note in report().notes)
    made = report([*RECORDS, make_record()])
    assert any("ledger counted 3 requests" in note and "the load test 4" in note for note in made.notes)


def test_the_timeline_counts_every_request_once():
    made = report([*RECORDS, failed()])
    assert sum(made.timeline.sent) == len(RECORDS) + 1
    assert (sum(made.timeline.completed), sum(made.timeline.errors)) == (len(RECORDS), 1)
    assert made.timeline.sent == [2, 5]


class Page(HTMLParser):
    """Collects what the tests ask about: tags that stay open, and attributes that could load something."""

    VOID = {"meta", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [
            (name, value)
            for name, value in attrs
            if name in ("src", "href", "srcset", "xlink:href") and not (value or "").startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "made",
    [
        report(),
        report(ledger=None),
        report(context=None, ledger=None),
        report([]),
        report([failed()]),
        report([*RECORDS, failed()]),
        report([make_record(stream=False, cost_usd=None)], context=None, ledger=None),
        report(run=make_run(SCENARIO, interrupted=True, ended_unix=1_800_000_000.2)),
    ],
    ids=["full", "no-ledger", "bare", "empty", "all-failed", "errors", "whole-answers", "cut-off"],
)
def test_every_report_shows_as_html_and_as_a_table(made):
    text = render_html(made)
    page = Page(text)
    assert page.open == []
    assert made.verdict.result.upper() in page.text
    # One file: nothing to load, no script, no link out.
    assert page.loads == [] and "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert "nan" not in text.lower().replace("finance", "") and "None" not in page.text
    console = Console(file=StringIO(), width=80)
    print_summary(made, console)
    assert made.verdict.result.upper() in console.file.getvalue()


def test_the_page_shows_the_figures():
    page = Page(render_html(report()))
    for text in (
        "gpt-5-mini",
        "$0.00000500",
        "same model, hosted",
        "Goodput",
        "vLLM:",
        "guidellm:",
        "laptop-cpu",
    ):
        assert text in page.text, text


def test_everything_from_outside_is_escaped():
    run = make_run(
        make_scenario(name=EVIL, models={EVIL: {"users": [CHAT]}}), scenario_file=EVIL, base_url=EVIL
    )
    error = {"kind": EVIL, "detail": EVIL}
    document = json.loads(context().model_dump_json())
    document["fleet"] = {"name": EVIL, "file": EVIL}
    document["models"] = {EVIL: document["models"]["a"] | {"accelerator": EVIL}}
    document["models"][EVIL]["comparators"][0]["name"] = EVIL
    records = [make_record(model=EVIL), make_record(model=EVIL, error=error)]
    made = report(records, run, context=Context.model_validate(document), ledger=None)
    page = Page(render_html(made))
    assert "script" not in page.tags and page.loads == [] and page.open == []
    assert EVIL in page.text
    console = Console(file=StringIO(), width=200)
    print_summary(made, console)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in RECORDS))
    (tmp_path / "run.json").write_text(make_run(SCENARIO).model_dump_json())
    (tmp_path / "context.json").write_text(context().model_dump_json())
    (tmp_path / "ledger.json").write_text(LEDGER.model_dump_json())
    return tmp_path


def test_the_command_writes_both_files_and_prints_the_summary(folder, capsys):
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "PASS" in printed and "gpt-5-mini" in printed
    assert json.loads((folder / "report.json").read_text()) == json.loads(build(folder).model_dump_json())
    assert (folder / "report.html").read_text() == render_html(build(folder))
    assert {path.suffix for path in folder.glob("report.*")} == {".html", ".json", ".csv", ".md", ".xml"}
    assert not list(folder.glob(".report*"))


def test_json_prints_the_document_alone(folder, capsys):
    assert main([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["result"] == "pass"


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", None), ("records.jsonl", "{}\n"), ("ledger.json", '{"models": 3}'), ("context.json", "{")],
)
def test_a_folder_that_is_no_run_is_refused(folder, capsys, name, content):
    path = folder / name
    path.unlink() if content is None else path.write_text(content)
    assert main([str(folder)]) == 2
    assert name in capsys.readouterr().err
    assert not (folder / "report.json").exists()


EVEN = {
    "price_usd_per_hour": 0.05, "overhead_factor": 1.1, "capacity_per_s": 30.0, "utilisation": 0.2,
    "against": [
        {"name": "gpt-5-mini", "role": "cheapest_proprietary", "usd_per_request": 1e-4, "breakeven": 0.06},
        {"name": "big", "role": "frontier", "usd_per_request": 1e-9, "breakeven": 3.0},
    ],
}  # fmt: skip


def test_the_first_screen_answers_the_four_questions():
    ledger = LEDGER.model_copy(update={"break_even": {"a": BreakEven.model_validate(EVEN)}})
    many = [make_record(model=name, arrival=n, sent=1 + n / 50) for name in "ab" for n in range(60)]
    page = Page(render_html(report([*RECORDS, *many], ledger=ledger))).text
    assert "Does it hold its SLOs?" in page and "A good request costs" in page
    assert "Yes, 9" in page and "gpt-5-mini (cheapest proprietary)" in page
    assert "6%" in page and "this run: 20%" in page and "never cheaper" in page


def test_few_requests_pass_without_certainty():
    made = report()
    assert made.verdict.result == "pass" and not made.verdict.certain
    assert any("A longer run can tell" in note for note in made.notes)
    many = [make_record(model=name, arrival=n) for name in "ab" for n in range(100)]
    assert report(many).verdict.certain


def test_percentiles_carry_their_intervals():
    # 37 is no divisor of 400: the values come in no order
    records = [make_record(model="a", arrival=n, first_content=1.05 + n * 37 % 400 / 5000) for n in range(400)]
    p50 = report(records).models["a"].latencies["ttft"].p50
    assert p50.low < p50.value < p50.high < 100
    few = report().models["a"].latencies["ttft"].p99
    assert few.high is None


def test_a_good_request_costs_more_than_a_request_when_some_are_late():
    late = [make_record(model="a", arrival=n, first_content=1.19 if n % 2 else 1.1) for n in range(100)]
    model = report(late).models["a"]
    assert model.good_whole_run == 50
    assert model.cost_per_good_request_usd == pytest.approx(2 * model.cost_per_request_usd)


def test_conversations_are_shown_turn_by_turn():
    talks = [make_record(arrival=n, turn=turn, prompt_tokens=20 * turn) for n in range(5) for turn in (1, 2, 3)]
    turns = report([*RECORDS, *talks]).models["a"].turns
    assert [(turn.turn, turn.requests) for turn in turns] == [(1, 7), (2, 5), (3, 5)]
    assert turns[2].input_tokens_mean == 60
    assert report().models["a"].turns == []


def test_others_count_the_same_events_otherwise():
    stream = make_record(first_event=1.08, last_event=1.22, gaps_ms=(10.0,) * 10)
    rows = {row.term: row for row in report([stream]).as_others_define}
    assert rows["TTFT, mean"].here == pytest.approx(100) and rows["TTFT, mean"].vllm == pytest.approx(80)
    tpot = rows["TPOT, tokens after the first, mean"]
    assert tpot.here == pytest.approx(10) and tpot.vllm == pytest.approx(14)
    assert rows["TPOT, token-weighted mean"].guidellm == pytest.approx(200 / 11)
    assert rows["End to end, mean"].guidellm == pytest.approx(250)
    assert rows["Gap between chunks, mean"].vllm == pytest.approx(10)
