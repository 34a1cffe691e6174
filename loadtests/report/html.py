"""The report as one HTML file that opens anywhere, offline, with nothing to load and no script.

Everything that came from outside (names, error messages, URLs) is escaped where it enters the page.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape

from loadtests.report import answers
from loadtests.report.costcard import cost_card
from loadtests.report.latencycard import latency_card, tokens_card, turns_card
from loadtests.report.model import Report
from loadtests.report.passcards import interference_card, pareto_card, saturation_card, stages_card
from loadtests.report.runcard import definitions_card, errors_card, run_card
from loadtests.report.slocard import slo_card
from loadtests.report.style import CSS
from loadtests.report.timecard import time_card

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PASSES = {"sweep": "sweep over rates", "interference": "each model alone, then the mix"}
_HEADING = re.compile(r'<section class="card" id="([^"]+)"[^>]*><h2[^>]*>(.*?)</h2>')


def render_html(report: Report) -> str:
    """The whole page."""
    title = escape(f"{report.run.scenario} on {report.fleet.name}")
    first = answers.verdict(report) + answers.answers(report) + _notes(report)
    cards = "".join(
        make(report)
        for make in (
            slo_card,
            saturation_card,
            interference_card,
            cost_card,
            pareto_card,
            latency_card,
            time_card,
            stages_card,
            turns_card,
            tokens_card,
            errors_card,
            run_card,
            definitions_card,
        )
    )
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name in _HEADING.findall(cards))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        f"<title>{title}: load test</title><style>{CSS}</style></head><body>"
        '<a class="skip" href="#content">Skip to the answers</a><main id="content">'
        f'<h1>{title}</h1><p class="sub">{_subtitle(report)}</p>{first}'
        f'<nav aria-label="On this page"><ul>{links}</ul></nav>{cards}</main></body></html>\n'
    )


def _subtitle(report: Report) -> str:
    run = report.run
    started = datetime.fromtimestamp(run.started_unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if run.kind == "mix":
        measured = f"{run.duration_s - run.warmup_s:g} s measured after {run.warmup_s:g} s of warm-up"
    else:
        passes = "1 pass" if len(run.stages) == 1 else f"{len(run.stages)} passes"
        measured = f"{_PASSES[run.kind]}, {passes} in {run.duration_s:.0f} s"
    return f"Load test of {len(report.models)} models together · {started} · {measured}"


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    heading = '<h2 id="notes-h">Before you read on</h2>'
    return f'<section class="card notes" aria-labelledby="notes-h">{heading}<ul>{items}</ul></section>'
