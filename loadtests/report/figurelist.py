"""The figures that two runs, or two passes of one, are compared by: what each is, which way is worse, by how much.

Thresholds are what may differ between two starts of an unchanged fleet without anybody minding; a comparison asks
whether a figure is surely worse by more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.report.estimates import Sample
from loadtests.statistics import Change, Estimate, Interval, absolute_change, relative_change

Unit = Literal["ms", "share", "1/s", "USD"]


@dataclass(frozen=True)
class Figure:
    """One figure. threshold: of the change, a share of the base where `relative`, else a difference."""

    key: str
    title: str
    unit: Unit
    estimate: Callable[[Sample], Estimate]
    higher_is_worse: bool
    threshold: float
    relative: bool = True

    def change(self, base: Interval, new: Interval) -> Change:
        """From base to new."""
        return relative_change(base, new) if self.relative else absolute_change(base, new)

    def spread(self, change: float | None) -> str:
        """A change in words: +12.3%, or −2.1 points of a share."""
        if change is None:
            return "–"
        if self.relative and change >= 9:
            return f"×{1 + change:.3g}" if change < 1e4 else "×10,000 or more"
        sign = "−" if change < 0 else "+"
        return f"{sign}{abs(change):.1%}" if self.relative else f"{sign}{abs(change) * 100:.1f} pp"


#: Of every model.
LATENCY_FIGURES: Sequence[Figure] = (
    Figure("ttft_p50", "TTFT p50", "ms", lambda s: s.quantile("ttft", 0.5), True, 0.10),
    Figure("ttft_p95", "TTFT p95", "ms", lambda s: s.quantile("ttft", 0.95), True, 0.15),
    Figure("tpot_p50", "TPOT p50", "ms", lambda s: s.quantile("tpot", 0.5), True, 0.10),
    Figure("tpot_p95", "TPOT p95", "ms", lambda s: s.quantile("tpot", 0.95), True, 0.15),
    Figure("e2e_p50", "end to end p50", "ms", lambda s: s.quantile("e2e", 0.5), True, 0.10),
    Figure("e2e_p95", "end to end p95", "ms", lambda s: s.quantile("e2e", 0.95), True, 0.15),
)
SHARE_FIGURES: Sequence[Figure] = (
    Figure("good_share", "requests in SLO", "share", lambda s: s.good_share(), False, 0.02, relative=False),
    Figure("error_share", "requests failed", "share", lambda s: s.error_share(), True, 0.01, relative=False),
)
#: Of the mix: what came of the whole.
MIX_FIGURES: Sequence[Figure] = (
    Figure("goodput", "goodput", "1/s", lambda s: s.goodput(), False, 0.10),
    Figure("output_tokens", "output tokens", "1/s", lambda s: s.output_rate(), False, 0.10),
    Figure("cost_per_request", "cost per request", "USD", lambda s: s.cost_per_request(), True, 0.10),
    Figure("cost_per_good_request", "cost per good request", "USD", lambda s: s.cost_per_good_request(), True, 0.10),
)
MODEL_FIGURES: Sequence[Figure] = (*LATENCY_FIGURES, *SHARE_FIGURES)
KEYS: tuple[str, ...] = tuple(figure.key for figure in (*MODEL_FIGURES, *MIX_FIGURES))
