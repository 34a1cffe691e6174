"""From panels to Grafana's JSON (schema version 39, Grafana 10 and newer)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from serving.fleet.config import Strict

_WIDTH, _HEIGHT, _STAT_HEIGHT = 24, 8, 4  # of Grafana's grid
_CHOICES = {
    "model": "label_values(flotilla_replica_seconds_total, model)",
    "tenant": "label_values(flotilla_requests_total, tenant)",
}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(Strict):
    """One panel. `queries`: PromQL by legend. `empty`: that it has no data is a good sign."""

    title: str
    unit: str
    queries: dict[str, str] = Field(min_length=1)
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    about: str = ""
    stack: bool = False
    empty: bool = False


class Row(Strict):
    """Panels side by side."""

    title: str
    panels: list[Panel] = Field(min_length=1)


class Dashboard(Strict):
    """One dashboard. `choices`: labels that its reader can choose."""

    uid: str = Field(pattern="^flotilla-[a-z]+$")
    title: str
    about: str
    choices: list[Literal["model", "tenant"]]
    rows: list[Row]

    @property
    def panels(self) -> list[Panel]:
        """All panels."""
        return [panel for row in self.rows for panel in row.panels]


@cache
def dashboards() -> tuple[Dashboard, ...]:
    """All of them."""
    read = yaml.safe_load((files("serving.telemetry.dashboards") / "panels.yaml").read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[Dashboard]).validate_python(read))


def as_grafana(board: Dashboard) -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "uid": board.uid, "title": board.title, "description": board.about, "tags": ["flotilla"], "schemaVersion": 39,
        "editable": True, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "links": [{"title": "Flotilla", "type": "dashboards", "tags": ["flotilla"], "asDropdown": True,
                   "includeVars": True, "keepTime": True}],
        "templating": {"list": [*_variables(board)]}, "panels": [*_panels(board)],
    }


def _variables(board: Dashboard) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    for name in board.choices:
        yield {"name": name, "type": "query", "label": name.capitalize(), "datasource": _SOURCE,
               "query": {"query": _CHOICES[name], "refId": name}, "definition": _CHOICES[name], "refresh": 2,
               "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}


def _panels(board: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for row in board.rows:
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}
        number, y = number + 1, y + 1
        height = _STAT_HEIGHT if all(p.kind == "stat" for p in row.panels) else _HEIGHT
        left = 0
        for index, panel in enumerate(row.panels):
            right = (index + 1) * _WIDTH // len(row.panels)
            place = {"x": left, "y": y, "w": right - left, "h": height}
            yield _panel(panel, number) | {"gridPos": place}
            number, left = number + 1, right
        y += height


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 20 if panel.stack else 0, "showPoints": "never", "spanNulls": False,
                              "stacking": {"mode": "normal" if panel.stack else "none"}}
        defaults["min"] = None if panel.title.startswith("Error budget") else 0
    targets = [{"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend or panel.title,
                "datasource": _SOURCE, "instant": panel.kind == "table", "exemplar": "_bucket" in expr,
                "format": "table" if panel.kind == "table" else "time_series"}
               for index, (legend, expr) in enumerate(panel.queries.items())]
    return {"id": number, "type": panel.kind, "title": panel.title, "description": panel.about, "datasource": _SOURCE,
            "fieldConfig": {"defaults": defaults, "overrides": []}, "targets": targets,
            "options": _OPTIONS[panel.kind]}


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"},
                   "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"},
    "table": {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]},
}
