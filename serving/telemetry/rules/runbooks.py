"""The runbook page, made from the table of alerts: what each means, what it costs, what to do first."""

from __future__ import annotations

import re

from serving.telemetry.rules.table import Alert, alerts

_HEADS = {"slo": "Error budgets", "capacity": "Capacity", "cost": "Cost", "correctness": "Correctness"}
_INTRO = """# Runbooks

Made from `serving/telemetry/rules/` by `flotilla rules --runbooks`; a test keeps it true. `flotilla rules FLEET` writes
the rule file that these alerts are in. **page**: someone is woken, because callers are being failed or money can no
longer be accounted for. **ticket**: it waits for the morning.

An error budget is what a promise of the fleet file's `slo` leaves: with `availability: 0.999`, one request of a
thousand in 30 days may fail. A page comes when 2% of it burn within an hour or 5% within six, a ticket at 10% within a
day or three; both only while it goes on, and only for what at least 20 requests in the last hour show. Requests that
their callers spoiled (4xx) or left are not counted.
"""


def page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRO]
    for group, head in _HEADS.items():
        parts.append(f"\n## {head}\n")
        parts += [_section(alert) for alert in alerts() if alert.group == group]
    return "".join(parts)


def _section(alert: Alert) -> str:
    steps = "".join(f"{number}. {step}\n" for number, step in enumerate(alert.steps, 1))
    when = "at once" if alert.wait == "0m" else f"after {alert.wait}"
    summary = re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"_\1_", alert.summary)
    return (f"\n### {alert.alert}\n\n{summary}.\n\n**{alert.severity}**, {when}. {alert.impact}\n\n{steps}\n"
            f"```promql\n{alert.expr}\n```\n")
