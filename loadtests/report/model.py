"""The shape of report.json: plain frozen values, filled by `build` and read by everything that shows them.

Units are in the names. None means "not known", never zero. Counts and latencies are of the measured window
(the warm-up left out); everything about cost is of the whole run, because the ledger's window is the whole
run.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from loadtests.context import FleetContext, Role
from loadtests.runinfo import Arrivals, Quantiles
from loadtests.scenario import Slo

CostBasis = Literal["fully_loaded", "charged"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Verdict(Part):
    """invalid: the load generator did not do what was asked, so the figures prove nothing. fail: it did, and
    requests failed or objectives were missed."""

    result: Literal["pass", "fail", "invalid"]
    reasons: list[str]


class Attainment(Part):
    """Share of requests that met an objective; None without objectives or without such requests."""

    goal: float
    ttft: float | None
    tpot: float | None
    all: float | None


class Traffic(Part):
    """Requests and the tokens of the successful ones."""

    requests: int
    errors: int
    succeeded: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class ComparatorCost(Part):
    """The run's successful traffic at API prices. saving: 1 − own fully loaded cost / this."""

    name: str
    role: Role
    cost_usd: float
    cost_per_request_usd: float | None
    cost_per_mtok_usd: float | None
    saving: float | None


class Cost(Part):
    """What the whole run cost, USD. basis None: neither ledger nor usage.cost said anything; charged: by usage.cost."""

    cost_basis: CostBasis | None
    cost_usd: float | None
    cost_per_request_usd: float | None
    cost_per_mtok_usd: float | None
    charged_cost_per_request_usd: float | None
    fully_loaded_cost_per_request_usd: float | None


class ModelReport(Traffic, Cost):
    """One model of the mix."""

    source: str
    architecture: str
    accelerator: str
    price_usd_per_hour: float | None
    random_weights: bool
    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float
    slo: Slo | None
    slo_attainment: Attainment
    ttft_ms: Quantiles
    ttft_from_scheduled_ms: Quantiles
    tpot_ms: Quantiles
    e2e_ms: Quantiles
    longest_gap_ms: Quantiles
    ttft_cdf: list[tuple[float, float]]
    """Points (ms, share of requests at or below), thinned for drawing."""
    whole_run: Traffic
    ledger_requests: int | None
    buckets_usd: dict[str, float] | None
    api_cost_usd: dict[str, float]
    savings: dict[str, float]
    comparators: list[ComparatorCost]


class RoleCost(Part):
    """The whole mix at the prices of one kind of comparator (the cheapest of its kind for each model)."""

    cost_usd: float
    saving: float | None


class Totals(Traffic, Cost):
    """The mix as a whole."""

    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float
    slo_attainment: float | None
    ttft_ms: Quantiles
    tpot_ms: Quantiles
    e2e_ms: Quantiles
    whole_run: Traffic
    comparators: dict[Role, RoleCost]


class ErrorGroup(Part):
    """Failed requests of one model and kind; in_warmup of count came before the measured window."""

    model: str
    kind: str
    count: int
    in_warmup: int
    example: str


class Timeline(Part):
    """Per second of the run, the mix as a whole. sent and ttft by the second of sending, completed and errors
    by the second of ending.
    """

    sent: list[int]
    completed: list[int]
    errors: list[int]
    ttft_p50_ms: list[float | None]


class RunFacts(Part):
    scenario: str
    scenario_file: str
    description: str
    base_url: str
    seed: int
    started_unix: float
    ended_unix: float
    duration_s: float
    warmup_s: float
    interrupted: bool
    arrivals: Arrivals
    dispatch_lateness_ms: Quantiles
    loop_lag_ms: Quantiles
    locust_version: str
    python_version: str


class LedgerFacts(Part):
    """residual: what the ledger could not give to any model. other_models: metered for models outside the
    mix.
    """

    residual_usd: float
    other_models_usd: float


class Definition(Part):
    """A term as this report uses it and as others do."""

    term: str
    here: str
    vllm: str
    aiperf: str
    guidellm: str


class Report(Part):
    """report.json."""

    format: int = 1
    verdict: Verdict
    notes: list[str]
    fleet: FleetContext
    run: RunFacts
    totals: Totals
    models: dict[str, ModelReport]
    errors: list[ErrorGroup]
    timeline: Timeline
    ledger: LedgerFacts | None
    definitions: list[Definition]
