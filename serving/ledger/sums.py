"""Everything that is read off the ledger: the bill and where it went, usage, single requests, and whether it adds up.

One place to import from; each question has a module of its own.
"""

from serving.ledger.costs import DIMENSIONS, CostRow, Dimension, costs
from serving.ledger.details import IntervalRow, RequestDetail, RequestRow, intervals, request, rows
from serving.ledger.reconciling import Reconciliation, reconcile
from serving.ledger.totals import ALIVE_S, ModelSums, SourceState, TenantTotal, Totals, totals
from serving.ledger.usage import USAGE_BY, By, Shape, UsageRow, shapes, usage

__all__ = [
    "ALIVE_S", "DIMENSIONS", "USAGE_BY", "By", "CostRow", "Dimension", "IntervalRow", "ModelSums", "Reconciliation",
    "RequestDetail", "RequestRow", "Shape", "SourceState", "TenantTotal", "Totals", "UsageRow", "costs", "intervals",
    "reconcile", "request", "rows", "shapes", "totals", "usage",
]
