"""Metrics of a fleet that a test makes up: counters as the real meter writes them, and the ledger's as text."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from prometheus_client import CollectorRegistry, generate_latest

from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.meter import PrometheusMeter
from serving.telemetry.view import Scrape

FLEET = """
name: sample
prices: prices.json
accelerators: {core: {kind: cpu, memory_gib: 2, cpus: 0.3, price_usd_per_hour: 0.04}}
models:
  qwen: {source: "small:qwen3", architecture: Qwen3ForCausalLM, accelerator: core, aliases: [chat],
         slo: {ttft_ms: 500, tpot_ms: 50, tenants: {shop: {ttft_ms: 800, availability: 0.9999},
                                                    search: {goodput: 0.99}}},
         engine: {max_model_len: 2048}, comparators: [
           {price: hosted/qwen, role: same_model_hosted}, {price: cheap-api, role: cheapest_proprietary},
           {price: big-api, role: frontier}]}
  llama: {source: org/llama, architecture: LlamaForCausalLM, accelerator: core, slo: {ttft_ms: 200, tpot_ms: 20},
          limits: {budget_per_day: {hard_usd: 2}}, comparators: [
           {price: hosted/llama, role: same_model_hosted}, {price: cheap-api, role: cheapest_proprietary}]}
  kimi: {source: org/kimi, architecture: DeepseekV3ForCausalLM, accelerator: core, slo: {ttft_ms: 900, tpot_ms: 60}}
  embed: {source: org/embed, architecture: Qwen3ForCausalLM, accelerator: core, replicas: {min: 0, max: 1},
          slo: {ttft_ms: 500, tpot_ms: 50}, engine: {args: {runner: pooling}}}
tenants: {shop: {limits: {budget_per_month: {soft_usd: 0.8, hard_usd: 1}}}, search: {}}
admin: {enabled: true}
"""


def fleet() -> Fleet:
    """The fleet that the tests' console shows."""
    return parse(FLEET, "sample", Fleet)


class FakeFleet:
    """Serves what a test says it did. Safe to be read while it is written."""

    def __init__(self) -> None:
        self.fleet = fleet()
        self._registry, self._lock = CollectorRegistry(), threading.Lock()
        self._meter = PrometheusMeter({name: m.slo for name, m in self.fleet.models.items()}, self._registry)
        self.sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.replicas = {"qwen": 2, "llama": 1}
        self.residual, self.ledger_up, self.away = 0, 1, ""
        self.looks = 0
        self.more = ""
        self.serve("qwen", 0)

    def serve(self, model: str, requests: int, ttft_s: float = 0.1, tokens: int = 20, usd: float = 2e-6,
              code: int = 200) -> None:
        """So many streams end."""
        outcome = "finished" if code == 200 else "failed"
        with self._lock:
            for _ in range(requests):
                self._meter.answered(RequestRecord("flo-1", "", "shop", "k1", model, "chat_completions", code, outcome,
                                                   0.0, ttft_s + 0.02 * tokens, True, ttft_s, Tokens(5, 0, tokens)),
                                     usd)
            found = self.sums[model]
            found["direct"] += 0.6 * usd * requests
            found["idle"] += 0.4 * usd * requests
            found["tokens"] += tokens * requests
            found["busy"] += 0.02 * requests
            found["spare"] += 0.01 * requests

    def begin(self, model: str) -> None:
        """A request is under way."""
        self._meter.begin(model)

    def scrape(self) -> Scrape:
        """As the exporter tells it now. Raises: OSError while it is `away`."""
        self.looks += 1
        if self.away:
            raise OSError(self.away)
        with self._lock:
            return Scrape.parse(time.monotonic(), generate_latest(self._registry).decode() + "".join(self._ledger()))

    def _ledger(self) -> list[str]:
        lines = [f"flotilla_ledger_up {self.ledger_up}\n", self.more]
        if not self.ledger_up:
            return lines
        for model, found in self.sums.items():
            tags = f'model="{model}",tenant="shop"'
            lines += [f'flotilla_cost_usd_total{{{tags},bucket="{b}"}} {found[b]}\n' for b in ("direct", "idle")]
            lines.append(f'flotilla_tokens_total{{{tags},kind="completion"}} {found["tokens"]}\n')
            for state, name in (("busy", "busy"), ("idle", "spare")):
                lines.append(f'flotilla_replica_seconds_total{{model="{model}",state="{state}"}} {found[name]}\n')
            spent = found["direct"] + found["idle"]
            for number, c in enumerate(self.fleet.models[model].comparators):
                theirs = spent * (0.8, 4.0, 40.0)[number]
                lines.append(f'flotilla_counterfactual_usd_total{{{tags},comparator="{c.name}"}} {theirs}\n')
        lines += [f'flotilla_replicas{{model="{model}"}} {count}\n' for model, count in self.replicas.items()]
        lines.append(f"flotilla_attribution_residual_nanousd {self.residual}\n")
        return lines
