"""Prometheus rules of a fleet: what it promises as error budgets, and alerts that wake someone only when it matters.

May not happen in here: reading files other than this package's own, talking to Prometheus.
"""
