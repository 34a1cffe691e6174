"""What can be said of a run's figures and with which confidence: intervals, comparisons, the search for a rate.

Pure: numbers in, numbers out; no records, no files, no clock, no randomness. numpy and the standard library are
enough for it: of scipy, which the load generator's image would have to carry, three functions were needed.
"""

from loadtests.statistics.differences import Change, Comparison, absolute_change, compare, holm, relative_change
from loadtests.statistics.intervals import (
    CONFIDENCE,
    Estimate,
    Interval,
    mean_interval,
    mean_of,
    quantile_interval,
    quantile_of,
    quotient,
    rate_of,
    requests_needed,
    scaled,
    share_interval,
    share_of,
)
from loadtests.statistics.search import Count, Found, Search, Trial, next_rate

__all__ = [
    "CONFIDENCE",
    "Change",
    "Comparison",
    "Count",
    "Estimate",
    "Found",
    "Interval",
    "Search",
    "Trial",
    "absolute_change",
    "compare",
    "holm",
    "mean_interval",
    "mean_of",
    "next_rate",
    "quantile_interval",
    "quantile_of",
    "quotient",
    "rate_of",
    "relative_change",
    "requests_needed",
    "scaled",
    "share_interval",
    "share_of",
]
