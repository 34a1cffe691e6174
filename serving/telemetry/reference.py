"""The metrics page, made from the table of metrics."""

from __future__ import annotations

from serving.telemetry.genai import NAMED, PROVIDER
from serving.telemetry.metrics import LABELS, METRICS, Metric

_SOURCES = {
    "gateway": ("Gateways", "Counted where answers are given, and added up over all gateway processes by the exporter. "
                            "They begin at 0 when the fleet starts."),
    "controller": ("Autoscaler", "Counted where Ray Serve's controller decides, and brought by the exporter. They "
                                 "begin at 0 when the controller starts."),
    "ledger": ("Ledger", "Read from the ledger: they equal the bill, include requests whose caller has gone, and "
                         "survive restarts. While its database is away they are missing, not zero."),
    "exporter": ("Exporter", "What the exporter sees of its machine itself; there while the ledger is away, too."),
}
_INTRO = """# Metrics

Made from `serving/telemetry/metrics.py` by `flotilla metrics --markdown`; a test keeps it true. A fleet's one exporter
serves them at `/metrics`; its `/targets` lists the replicas for Prometheus' HTTP service discovery, so that vLLM's own
metrics (`vllm:…`) are scraped with the label `model`.
"""
_THEIRS = f"""
## OpenTelemetry's names

With `metrics: {{gen_ai: true}}` in the fleet file gateways count these too, all histograms. Attributes are labels with
underscores for dots: the operation is chat, text_completion, embeddings or the endpoint's own name, the provider is
`{PROVIDER}`, the model is the label `model` of Flotilla's own, `error_type` is empty where there was none. Spans carry
the same attributes always. Flotilla's own metrics know tenants and cost; these do not. `metrics.push` sends them to a
collector, too (`observing.md`).

| OpenTelemetry | here | labels | beside | meaning |
|---|---|---|---|---|
"""
_HEAD = "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n"


def page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRO]
    for source, (head, about) in _SOURCES.items():
        rows = "".join(_row(metric) for metric in METRICS if metric.source == source)
        parts.append(f"\n## {head}\n\n{about}\n\n{_HEAD}{rows}")
    labels = "".join(f"| `{name}` | {label.meaning} | {label.bound} |\n" for name, label in LABELS.items())
    buckets = "".join(_bounds(metric) for metric in METRICS if metric.buckets)
    return "".join([*parts, "\n## Labels\n\n| label | meaning | at most |\n|---|---|---|\n", labels,
                    "\n## Buckets of histograms\n\n| metric | upper bounds |\n|---|---|\n", buckets, _theirs()])


def _theirs() -> str:
    rows = "".join(f"| `{n.name}` | `{n.metric.name}` | {', '.join(f'`{x}`' for x in n.metric.labels)} | `{n.ours}` "
                   f"| {n.metric.help} |\n" for n in NAMED)
    bounds = "".join(_bounds(named.metric) for named in NAMED)
    return f"{_THEIRS}{rows}\n| metric | upper bounds |\n|---|---|\n{bounds}"


def _bounds(metric: Metric) -> str:
    return f"| `{metric.name}` | {', '.join(f'{b:.9g}' for b in metric.buckets)} |\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |\n"
