"""Stages, sweeps and interference: what the report says of runs whose truth is known."""

from __future__ import annotations

import io

import pytest
from load_samples import CHAT, failed, make_record, make_run, make_scenario
from rich.console import Console
from test_load_report import Page

from loadtests.report import print_summary, render_html
from loadtests.report.build import Inputs, report_of
from loadtests.report.stretches import efficient
from loadtests.runinfo import StageSpan, SweepFacts, SweepStep

SLO = {"ttft_ms": 150.0, "tpot_ms": 12.0}
SCENARIO = make_scenario(models={name: {"users": [CHAT], "slo": SLO} for name in "ab"}, duration_s=300.0)


def stream(at: float, ttft_s: float = 0.1, **changes):
    """Eleven tokens, 10 ms apart, the first after ttft_s."""
    first = at + ttft_s
    times = {"scheduled": at, "sent": at, "first_content": first, "last_content": first + 0.1, "ended": first + 0.1}
    return make_record(arrival=round(at * 1000), **times | changes)


def span(name: str, kind: str, start: float, end: float, **changes) -> StageSpan:
    return StageSpan(name=name, kind=kind, start_s=start, end_s=end, measured=True, **changes)


def report(records, **changes):
    run = make_run(SCENARIO, ended_unix=1_800_000_300.0, **changes)
    return report_of(Inputs(run=run, records=records, context=None, ledger=None))


def step(rate: float, start: float, share_late: float, met: bool, valid: bool = True):
    """A step of 20 s: its stage, its facts, and its records, of which some are late."""
    name, count = f"step at {rate:g}/s", round(rate * 20)
    late = round(count * share_late)
    records = [
        stream(start + n / rate, 0.1 if (n * 7) % count >= late else 0.5 + rate / 100, stage=name, model="ab"[n % 2])
        for n in range(count)
    ]
    stage = span(name, "step", start, start + 20.0, rate_per_s=rate)
    fact = SweepStep(stage=name, rate_per_s=rate, requests=count, attained=1 - share_late, met=met, valid=valid)
    return stage, fact, records


def swept(*steps, highest=None, missed=None):
    facts = SweepFacts(method="bisection", goal=0.9, steps=tuple(f for _, f, _ in steps), highest_met_per_s=highest,
                       lowest_missed_per_s=missed)
    records = [record for _, _, found in steps for record in found]
    return report(records, kind="sweep", sweep=facts, stages=tuple(s for s, _, _ in steps))


def test_a_sweep_shows_its_answer_and_its_rates():
    made = swept(step(4, 0, 0.0, True), step(8, 30, 0.02, True), step(16, 60, 0.7, False), highest=8.0, missed=16.0)
    found = made.saturation
    assert [(point.rate_per_s, point.met, point.figures.requests) for point in found.points] == [
        (4, True, 80), (8, True, 160), (16, False, 320)]
    assert found.points[2].figures.good_share.value == pytest.approx(0.3, abs=0.01)
    assert found.points[1].figures.goodput_per_s.value == pytest.approx(7.84, abs=0.1)
    assert found.knee_per_s == 8.0
    # the headline is of the highest rate that was met
    assert made.totals.requests == 160 and made.verdict.result == "pass"
    page = Page(render_html(made))
    assert "met up to 8.00 arrivals a second, and not at 16.0" in page.text and page.open == []
    assert made.stages[0].figures.requests == 80


@pytest.mark.parametrize(("highest", "missed", "answer", "of", "tone"), [
    (8.0, 16.0, "8.00/s", "Figures of 8.00 arrivals a second", "good"),
    (8.0, None, "8.00/s at least", "Figures of 8.00 arrivals a second", "good"),
    (None, 4.0, "None of the rates tried", "Figures of the first step", "bad"),
])
def test_a_sweep_leads_with_how_much_is_carried(highest, missed, answer, of, tone):
    met = highest is not None
    made = swept(step(4, 0, 0.0, met), step(8, 30, 0.02, met), highest=highest, missed=missed)
    whole = render_html(made)
    assert f'<li class="{tone}"><span>How much does it carry?</span><strong>{answer}</strong>' in whole
    lead = whole[whole.index('role="status"') : whole.index("</ul>")]
    assert ("met up to 8.00 arrivals" if highest else "No rate that was tried surely meets") in lead
    assert of in whole
    said = Console(width=100, record=True, file=io.StringIO())
    print_summary(made, said)
    assert ("met up to 8.00 arrivals" if highest else "No rate that was tried") in said.export_text()


def test_trials_at_one_rate_count_together_and_a_spoilt_one_is_marked():
    made = swept(step(4, 0, 0.0, True), step(4, 30, 0.0, True), step(8, 60, 0.0, False, valid=False), highest=4.0)
    twice, spoilt = made.saturation.points
    assert twice.trials == ["step at 4/s"] * 2 and not spoilt.valid
    text = Page(render_html(made)).text
    assert "4.00 arrivals a second at least" in text and "--processes" in text and "invalid" in text


def test_a_sweep_that_the_generator_spoilt_says_nothing_of_the_fleet():
    made = swept(step(4, 0, 0.0, False, valid=False))
    text = Page(render_html(made)).text
    assert "Nothing is known of the fleet" in text and "No rate that was tried" not in text
    assert "over the rate" not in text and "1 pass in" in text


def test_efficient_points_are_those_that_nothing_beats():
    places = [(1.0, 9.0), (2.0, 5.0), (2.5, 6.0), (3.0, 5.0)]
    assert [efficient(at, places) for at in places] == [True, True, False, False]


def test_cost_against_latency_is_drawn_for_models_and_for_rates():
    slow = [stream(n / 4, 0.12 if n % 2 else 0.1, model="ab"[n % 2]) for n in range(80)]
    assert "Each point is a model of the mix" in render_html(report(slow))
    rates = swept(step(4, 0, 0.0, True), step(8, 30, 0.3, False), highest=4.0, missed=8.0)
    assert [point.efficient for point in rates.saturation.points] == [True, False]
    assert "Each point is a rate" in render_html(rates)


def alone_and_mixed(slower: float):
    """Model a is slower in the mix by this factor; b is not."""
    stages = (span("a alone", "alone", 0, 40, models=("a",)), span("b alone", "alone", 50, 90, models=("b",)),
              span("mix", "mix", 100, 140))
    records = []
    for stage in stages:
        for name in stage.models or ("a", "b"):
            factor = slower if name == "a" and stage.kind == "mix" else 1.0
            records += [stream(stage.start_s + n / 5, factor * (0.05 + 0.04 * (n * 37 % 200) / 200), stage=stage.name,
                               model=name) for n in range(200)]
    return report(records, kind="interference", stages=stages)


def test_interference_names_who_suffers():
    made = alone_and_mixed(1.5)
    a, b = made.interference
    found = {contrast.key: contrast for contrast in a.contrasts}
    assert found["ttft_p50"].change.value == pytest.approx(0.5, abs=0.01) and found["ttft_p50"].effect == "worse"
    assert found["error_share"].effect == "none seen"
    assert {contrast.effect for contrast in b.contrasts} == {"none seen"}
    assert (a.requests_alone, a.requests_mix) == (200, 200)
    page = Page(render_html(made))
    assert "slower or worse" in page.text and "each model alone, then the mix" in page.text
    # what counts is the mix
    assert made.totals.requests == 400


def test_stages_are_told_apart():
    stages = (
        StageSpan(name="warmup", kind="warmup", start_s=0, end_s=10, measured=False, rate_per_s=4.0),
        span("before", "hold", 10, 50, rate_per_s=4.0), span("spike", "spike", 50, 60, rate_per_s=16.0),
    )
    records = [stream(n / 4, stage="warmup" if n < 40 else "before", warmup=n < 40) for n in range(200)]
    records += [stream(50 + n / 16, 0.4, stage="spike") for n in range(160)] + [failed(stage="before", scheduled=20.0)]
    made = report(records, stages=stages)
    assert [(s.name, s.figures.requests, s.figures.errors, s.measured) for s in made.stages] == [
        ("warmup", 40, 0, False), ("before", 161, 1, True), ("spike", 160, 0, True)]
    assert made.stages[2].figures.ttft_p95_ms.value == pytest.approx(400)
    text = Page(render_html(made)).text
    assert "Stage by stage" in text and "not counted" in text
