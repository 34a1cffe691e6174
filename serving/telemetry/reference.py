"""The metrics page, made from the table of metrics."""

from __future__ import annotations

from serving.telemetry.metrics import LABELS, METRICS, Metric

_SOURCES = {
    "gateway": ("Gateways", "Counted where answers are given, and added up over all gateway processes by the exporter. "
                            "They begin at 0 when the fleet starts."),
    "ledger": ("Ledger", "Read from the ledger: they equal the bill, include requests whose caller has gone, and "
                         "survive restarts. While its database is away they are missing, not zero."),
    "exporter": ("Exporter", "What the exporter sees of its machine itself; there while the ledger is away, too."),
}
_INTRO = """# Metrics

Made from `serving/telemetry/metrics.py` by `flotilla metrics --markdown`; a test keeps it true. A fleet's one exporter
serves them at `/metrics`; its `/targets` lists the replicas for Prometheus' HTTP service discovery, so that vLLM's own
metrics (`vllm:…`) are scraped with the label `model`.
"""
_HEAD = "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n"


def page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRO]
    for source, (head, about) in _SOURCES.items():
        rows = "".join(_row(metric) for metric in METRICS if metric.source == source)
        parts.append(f"\n## {head}\n\n{about}\n\n{_HEAD}{rows}")
    labels = "".join(f"| `{name}` | {label.meaning} | {label.bound} |\n" for name, label in LABELS.items())
    buckets = "".join(f"| `{m.name}` | {', '.join(f'{b:g}' for b in m.buckets)} |\n" for m in METRICS if m.buckets)
    return "".join([*parts, "\n## Labels\n\n| label | meaning | at most |\n|---|---|---|\n", labels,
                    "\n## Buckets of histograms\n\n| metric | upper bounds |\n|---|---|\n", buckets])


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |\n"
