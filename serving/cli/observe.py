"""`flotilla metrics`, `rules` and `dashboards`: what Prometheus and Grafana are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from serving.cli.fleet import load
from serving.cli.output import stderr, table
from serving.cli.run import FleetFile
from serving.telemetry import reference
from serving.telemetry.dashboards.build import as_grafana
from serving.telemetry.dashboards.build import dashboards as boards
from serving.telemetry.genai import NAMED
from serving.telemetry.metrics import METRICS
from serving.telemetry.rules import build, runbooks


def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead.")] = False,
) -> None:
    """Every metric with its labels and where it comes from."""
    if markdown:
        sys.stdout.write(reference.page())
    else:
        table(["metric", "kind", "labels", "from"],
              [(m.name, m.kind, ", ".join(m.labels), m.source)
               for m in (*METRICS, *(named.metric for named in NAMED))])


def rules(
    file: FleetFile = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    runbook_url: Annotated[str, typer.Option(help="Where the runbook page is; alerts point into it.")] = build.RUNBOOK,
    runbook_page: Annotated[bool, typer.Option("--runbooks", help="Print the runbook page instead.")] = False,
) -> None:
    """Print Prometheus' rule file of a fleet: its `slo` as error budgets, and every alert.

    Add it to `rule_files` of prometheus.yml.
    """
    if runbook_page:
        text = runbooks.page()
    else:
        path, found = load(file)
        slos = {name: model.slo for name, model in found.models.items()}
        made = build.rule_file(slos, found.ledger.spool_bytes, runbook_url)
        text = f"# Made by `flotilla rules {path}`; do not edit.\n" + yaml.safe_dump(made, sort_keys=False, width=4096)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        stderr.print(f"written: {out}", highlight=False, soft_wrap=True)


def dashboards(
    out: Annotated[Path, typer.Option(help="Folder for one JSON file per dashboard.")] = Path("grafana"),
) -> None:
    """Write the Grafana dashboards: fleet, model, tenants and cost, gateway and ledger, autoscaling, load test."""
    out.mkdir(parents=True, exist_ok=True)
    for board in boards():
        file = out / f"{board.uid}.json"
        file.write_text(json.dumps(as_grafana(board), indent=1) + "\n", encoding="utf-8")
        stderr.print(f"written: {file}", highlight=False, soft_wrap=True)
