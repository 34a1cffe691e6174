"""The cards at the end: what failed, what was run on what, and what every figure means."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from loadtests.report import figures
from loadtests.report.markup import card, details, facts, muted, table
from loadtests.report.model import PeerFigure, Report
from loadtests.runinfo import WorkerFacts

_KINDS = {
    "connect": "no connection",
    "transport": "the connection broke",
    "timeout": "not complete in time",
    "error_event": "an error in mid-stream",
    "truncated": "the stream ended early",
    "bad_json": "not JSON",
    "empty": "no content",
    "interrupted": "the run was stopped",
    "http_429": "too many requests",
    "http_503": "no replica or no seat",
    "http_504": "deadline passed",
}


_LOOPS = {
    "open": "open loop: requests leave when they are due, whatever others wait for",
    "closed": "closed loop: a user waits for the answer before asking again",
    "mixed": "open loop for some models, closed for others",
}


def errors_card(report: Report) -> str:
    """By model and cause, the most frequent first; "" where nothing failed."""
    if not report.errors:
        return ""
    heads = ["Cause", "Count", "In warm-up", "Example"]
    rows = [
        [
            f"{escape(group.model)}<small>{escape(group.kind)}{_said(group.kind)}</small>",
            figures.count(group.count),
            figures.count(group.in_warmup),
            escape(group.example),
        ]
        for group in report.errors
    ]
    return card("Errors", table("Failed requests by model and cause", heads, rows, text_columns=(3,)))


def _said(kind: str) -> str:
    return f": {_KINDS[kind]}" if kind in _KINDS else ""


def run_card(report: Report) -> str:
    """Everything it takes to run this again, and how truthfully the load was sent."""
    run, arrivals, made = report.run, report.run.arrivals, report.provenance
    lateness, lag = run.dispatch_lateness_ms, run.loop_lag_ms
    machine = made.machine
    told = [
        ("Scenario", f"{run.scenario} ({run.scenario_file})"),
        ("Seed", str(run.seed)),
        ("Fleet file", " · ".join(part for part in (report.fleet.name, report.fleet.file) if part)),
        # Without its scheme, so that no reader turns it into a link.
        ("Endpoint", run.base_url.split("://", 1)[-1]),
        (
            "Arrivals",
            f"{arrivals.sent:,} of {arrivals.scheduled:,} sent; {arrivals.achieved_rate_per_s:.2f} of "
            f"{arrivals.requested_rate_per_s:.2f} per second",
        ),
        ("Load", _LOOPS[run.loop]),
        ("Workers", _workers(run.workers)),
        ("Dispatch lateness", f"p50 {figures.ms(lateness['p50'])}, p99 {figures.ms(lateness['p99'])} ms"),
        ("Event-loop lag", f"p50 {figures.ms(lag['p50'])}, p99 {figures.ms(lag['p99'])} ms"),
        ("Longest gap in a stream, p99", _gaps(report)),
        ("Price book", f"{made.price_book.version} {made.price_book.origin}".strip() if made.price_book else ""),
        ("Load generator", f"Locust {run.locust_version}, Python {run.python_version}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
        ("Commit", made.commit),
        ("Machine", _machine(machine) if machine else ""),
    ]
    items = [(escape(name), escape(value) or figures.DASH) for name, value in told]
    description = muted(escape(run.description)) if run.description else ""
    return card("The run", description + facts(items), "run")


def _workers(workers: Sequence[WorkerFacts]) -> str:
    """How many, how hard the busiest worked, and how far clocks were apart."""
    if not workers:
        return ""
    busiest = max(workers, key=lambda worker: worker.cpu_share)
    told = f"{len(workers)}; the busiest used {busiest.cpu_share:.0%} of a core at most"
    told += f", {busiest.chunks_per_s:,.0f} chunks/s"
    if busiest.memory_mib:
        told += f"; memory {busiest.memory_early_mib:.0f} MiB after 30 s, {busiest.memory_mib:.0f} MiB at the end"
    if len(workers) > 1:
        off = max(abs(worker.clock_offset_ms) + worker.clock_error_ms for worker in workers)
        told += f"; clocks within {figures.ms(off)} ms"
    return told


def _gaps(report: Report) -> str:
    return ", ".join(f"{name} {figures.ms(m.longest_gap_ms['p99'])} ms" for name, m in report.models.items())


def _machine(machine) -> str:
    cores = f"{machine.cores} cores" if machine.cores else ""
    memory = f"{machine.memory_gib:.0f} GiB" if machine.memory_gib else ""
    return ", ".join(part for part in (machine.processor, cores, memory, machine.system, *machine.accelerators) if part)


def definitions_card(report: Report) -> str:
    """The same raw events under four tools' definitions, then every term and formula."""
    items = []
    for definition in report.definitions:
        others = (("vLLM", definition.vllm), ("AIPerf", definition.aiperf), ("guidellm", definition.guidellm))
        said = " ".join(f"<b>{name}:</b> {escape(text)}" for name, text in others if text != figures.DASH)
        items.append(f"<dt>{escape(definition.term)}</dt><dd>{escape(definition.here)}</dd>")
        items.append(f'<dd class="others">{said}</dd>' if said else "")
    return card("Definitions", _peers(report.as_others_define) + f'<dl class="defs">{"".join(items)}</dl>')


def _peers(found: list[PeerFigure]) -> str:
    if not found:
        return ""
    rows = [
        [
            f"{escape(row.term)}<small>{row.unit}</small>",
            *(figures.ms(value) for value in (row.here, row.vllm, row.aiperf, row.guidellm)),
        ]
        for row in found
    ]
    shown = table(
        "The mix's same raw events, counted as each tool defines the term",
        ["Figure", "here", "vLLM bench", "AIPerf", "guidellm"],
        rows,
    )
    note = muted("A dash: not defined there, or from what the records do not keep.")
    return details("This run's figures as vLLM, AIPerf and guidellm would count them", shown + note)
