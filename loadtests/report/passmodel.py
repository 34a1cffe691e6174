"""Parts of report.json about stretches of a run: its stages, a sweep's rates, each model alone against the mix."""

from __future__ import annotations

from typing import Literal

from loadtests.report.parts import Estimated, Part

StageCostBasis = Literal["fully_loaded", "charged"]
Effect = Literal["worse", "better", "none seen"]


class Figures(Part):
    """A stretch's requests in short. Counts and latencies are of the requests due in it, rates per second of it.

    cost_per_good_request: fully loaded is the whole fleet's bill in the stretch, as the exporter told it, over its good
    requests; charged is the sum of usage.cost instead.
    """

    requests: int
    errors: int
    requests_per_s: float
    good_share: Estimated | None
    goodput_per_s: Estimated | None
    output_tokens_per_s: Estimated | None
    ttft_p50_ms: Estimated | None
    ttft_p95_ms: Estimated | None
    tpot_p50_ms: Estimated | None
    tpot_p95_ms: Estimated | None
    e2e_p50_ms: Estimated | None
    e2e_p95_ms: Estimated | None
    e2e_mean_ms: float | None
    cost_per_good_request_usd: float | None
    cost_basis: StageCostBasis | None


class StageReport(Part):
    """One stage of a plain run, or one pass of several. rate_per_s: asked for; None in a closed loop."""

    name: str
    kind: str
    start_s: float
    end_s: float
    measured: bool
    rate_per_s: float | None
    models: list[str]
    figures: Figures


class RatePoint(Part):
    """All trials of a sweep at one rate. met: surely every model's objectives; valid: the generator kept up in all.

    efficient: no other rate has both a lower cost per good request and a lower TTFT p95; None where one is not known.
    """

    rate_per_s: float
    trials: list[str]
    met: bool
    valid: bool
    efficient: bool | None
    figures: Figures


class Saturation(Part):
    """What a sweep found. knee_per_s: the rate tried with the highest power, goodput over mean end-to-end time
    (Kleinrock 1979, "Power and deterministic rules of thumb for probabilistic problems in computer communications").

    highest_met_per_s: at most a 5% chance that the fleet does not meet its objectives there; ended: why no more rates
    were tried.
    """

    method: str
    goal: float
    highest_met_per_s: float | None
    lowest_missed_per_s: float | None
    knee_per_s: float | None
    ended: str
    points: list[RatePoint]


class Contrast(Part):
    """One figure of a model alone and in the mix. change: relative; of a share, the difference."""

    key: str
    title: str
    unit: str
    alone: Estimated | None
    mix: Estimated | None
    change: Estimated | None
    effect: Effect | None


class Interference(Part):
    """What the other models do to one of them: the same schedule alone, and with theirs."""

    model: str
    requests_alone: int
    requests_mix: int
    contrasts: list[Contrast]
