"""The shape of report.json: plain frozen values, filled by `build` and read by everything that shows them.

Units are in the names. None means "not known", never zero. Counts and latencies are of the measured window
(the warm-up left out); everything about cost is of the whole run, because the ledger's window is the whole
run.
"""

from __future__ import annotations

from typing import Literal

from loadtests.context import BreakEven, FleetContext, Machine, PriceBook, Role
from loadtests.report.parts import Estimated, Part
from loadtests.report.passmodel import Interference, Saturation, StageReport
from loadtests.runinfo import Arrivals, Quantiles, RunKind, ScrapeFacts, StageSpan, SweepFacts, WorkerFacts
from loadtests.scenario import Slo

CostBasis = Literal["fully_loaded", "charged"]
LatencyKind = Literal["ttft", "ttft_from_scheduled", "tpot", "inter_chunk", "e2e"]
Answer = Literal["met", "missed", "undecided"]


class Verdict(Part):
    """invalid: the load generator did not do what was asked, so the figures prove nothing. fail: it did, and
    requests failed or objectives were missed. certain: the figures are surely on this side of the goals (95%
    confidence for each objective); a run of few requests is not.
    """

    result: Literal["pass", "fail", "invalid"]
    reasons: list[str]
    certain: bool


class Latency(Part):
    """One kind of latency, milliseconds. cdf: points (ms, share of requests at or below), thinned for drawing."""

    count: int
    mean: Estimated | None
    p50: Estimated | None
    p90: Estimated | None
    p95: Estimated | None
    p99: Estimated | None
    max: float | None
    cdf: list[tuple[float, float]]


class Objective(Part):
    """One objective of one model. answer: whether the share is surely at least the goal, surely below, or neither."""

    term: Literal["TTFT", "TPOT"]
    limit_ms: float
    share: Estimated
    answer: Answer


class Attainment(Part):
    """Share of requests that met an objective; None without objectives or without such requests."""

    goal: float
    ttft: float | None
    tpot: float | None
    all: float | None
    good: Estimated | None
    objectives: list[Objective]
    answer: Answer | None


class Traffic(Part):
    """Requests and the tokens of the successful ones."""

    requests: int
    errors: int
    succeeded: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class TokenFacts(Part):
    """Tokens per successful request of the measured window."""

    input: Quantiles
    output: Quantiles
    cached_share: float | None
    finish_reasons: dict[str, int]


class Turn(Part):
    """The n-th requests of conversations (1: all first requests, single questions included)."""

    turn: int
    requests: int
    errors: int
    input_tokens_mean: float | None
    cached_share: float | None
    output_tokens_mean: float | None
    ttft_p50_ms: Estimated | None
    tpot_p50_ms: Estimated | None
    e2e_p50_ms: Estimated | None
    good_share: float | None
    charged_cost_per_request_usd: float | None


class Rates(Part):
    """Per second of the measured window, with intervals from its blocks of time."""

    requests: Estimated | None
    good_requests: Estimated | None
    output_tokens: Estimated | None


class ComparatorCost(Part):
    """The run's successful traffic at API prices. saving: 1 − own fully loaded cost / this.

    token_ratio: its tokens per token of ours; batch: its batch prices.
    """

    name: str
    role: Role
    cost_usd: float
    cost_per_request_usd: float | None
    cost_per_mtok_usd: float | None
    saving: float | None
    input_usd_per_mtok: float
    cached_input_usd_per_mtok: float | None
    output_usd_per_mtok: float
    batch: bool
    token_ratio: float | None


class Cost(Part):
    """What the whole run cost, USD. basis None: neither ledger nor usage.cost said anything; charged: by usage.cost."""

    cost_basis: CostBasis | None
    cost_usd: float | None
    cost_per_request_usd: float | None
    cost_per_mtok_usd: float | None
    charged_cost_per_request_usd: float | None
    fully_loaded_cost_per_request_usd: float | None


class Group(Traffic, Cost):
    """A model, or the mix as a whole. cost_per_good_request: whole run's cost / whole run's good requests."""

    good: int
    good_whole_run: int
    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float
    rates: Rates
    ttft_ms: Quantiles
    tpot_ms: Quantiles
    e2e_ms: Quantiles
    latencies: dict[LatencyKind, Latency]
    tokens: TokenFacts
    turns: list[Turn]
    whole_run: Traffic
    cost_per_good_request_usd: float | None
    cost_per_good_request_interval_usd: Estimated | None


class ModelReport(Group):
    """One model of the mix."""

    source: str
    architecture: str
    accelerator: str
    price_usd_per_hour: float | None
    random_weights: bool
    slo: Slo | None
    slo_attainment: Attainment
    ttft_from_scheduled_ms: Quantiles
    longest_gap_ms: Quantiles
    ttft_cdf: list[tuple[float, float]]
    ledger_requests: int | None
    buckets_usd: dict[str, float] | None
    api_cost_usd: dict[str, float]
    savings: dict[str, float]
    comparators: list[ComparatorCost]
    break_even: BreakEven | None


class RoleCost(Part):
    """The whole mix at the prices of one kind of comparator (the cheapest of its kind for each model).

    traffic_factor: this run's traffic times it costs as much there as the fleet does here, if the fleet stays as
    it is: below 1 the fleet is already cheaper. names: the comparators it is made of.
    """

    cost_usd: float
    saving: float | None
    traffic_factor: float | None
    names: list[str]


class Totals(Group):
    """The mix as a whole."""

    slo_attainment: float | None
    good_share: Estimated | None
    comparators: dict[Role, RoleCost]


class ErrorGroup(Part):
    """Failed requests of one model and kind; in_warmup of count came before the measured window."""

    model: str
    kind: str
    count: int
    in_warmup: int
    example: str


class Series(Part):
    """Counts per bin of the run. sent and ttft by the time of sending, the others by the time of ending;
    output_tokens by when they were delivered.
    """

    sent: list[int]
    completed: list[int]
    good: list[int]
    errors: list[int]
    output_tokens: list[float]
    ttft_p50_ms: list[float | None]
    ttft_p95_ms: list[float | None]


class Timeline(Series):
    """The mix as a whole, and each model; bins of bin_s seconds from the start of the run."""

    bin_s: float
    models: dict[str, Series]


class FleetSeries(Part):
    """One model as the fleet told it, a value per sample; None: not told.

    starting: replicas in their cold start, on average since the sample before. waiting: in gateways and engines.
    running: in engines, or in flight at gateways where no engine was asked. kv_used: share of the KV cache.
    """

    replicas: list[float | None]
    starting: list[float | None]
    waiting: list[float | None]
    running: list[float | None]
    kv_used: list[float | None]
    usd_per_hour: list[float | None]


class FleetLine(Part):
    """The fleet's own metrics during the run. at_s: run seconds of the samples. cost_usd: the whole bill so far."""

    at_s: list[float]
    models: dict[str, FleetSeries]
    usd_per_hour: list[float | None]
    cost_usd: list[float | None]


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
    kind: RunKind
    loop: Literal["open", "closed", "mixed"]
    stopped_by: str | None
    lost: tuple[str, ...]
    stages: tuple[StageSpan, ...]
    workers: tuple[WorkerFacts, ...]
    sweep: SweepFacts | None
    scrape: ScrapeFacts | None


class Provenance(Part):
    """What else it takes to run this again: versions, commit, machine, price book."""

    versions: dict[str, str]
    commit: str
    machine: Machine | None
    price_book: PriceBook | None


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


class PeerFigure(Part):
    """One figure of the same raw events, as each tool defines it; None: not defined there."""

    term: str
    unit: str
    here: float | None
    vllm: float | None
    aiperf: float | None
    guidellm: float | None


class Report(Part):
    """report.json."""

    format: int = 3
    confidence: float
    verdict: Verdict
    notes: list[str]
    fleet: FleetContext
    run: RunFacts
    provenance: Provenance
    totals: Totals
    models: dict[str, ModelReport]
    errors: list[ErrorGroup]
    timeline: Timeline
    fleet_line: FleetLine | None
    stages: list[StageReport]
    saturation: Saturation | None
    interference: list[Interference]
    ledger: LedgerFacts | None
    definitions: list[Definition]
    as_others_define: list[PeerFigure]
