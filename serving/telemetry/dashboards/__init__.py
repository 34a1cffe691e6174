"""Grafana dashboards of a fleet: panels as data, built into the JSON that Grafana imports.

May not happen in here: talking to Grafana or Prometheus.
"""
