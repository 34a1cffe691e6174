"""`flotilla top` on a cluster: the exporter's page and those of the pods behind a name, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from http_server import Handler, listening
from typer.testing import CliRunner

from serving.cli.main import app
from serving.errors import ConfigError, FleetNotRunning

LAPTOP = Path(__file__).resolve().parents[2] / "deployments/fleets/laptop.yaml"


@contextmanager
def page(text: str) -> Iterator[str]:
    class Answer(Handler):
        def do_GET(self) -> None:
            self.send_whole(200, text.encode())

    with listening(Answer) as url:
        yield f"{url}/metrics"


def top(*more: str) -> Any:
    return CliRunner().invoke(app, ["top", "--once", "--every", "0.5", "--json", *more],
                              env={"FLOTILLA_FLEET": str(LAPTOP)})


def test_the_ledgers_figures_and_those_of_pods() -> None:
    with page('flotilla_replicas{model="qwen"} 2\n') as exporter, \
            page('flotilla_requests_in_flight{model="qwen"} 5\n') as pods:
        done = top("--metrics", exporter, "--pods", pods)
    (qwen,) = [m for m in json.loads(done.stdout)["models"] if m["model"] == "qwen"]
    assert (qwen["replicas"], qwen["in_flight"]) == (2, 5)


def test_promises_stand_below_with_what_is_left_of_their_budgets(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(LAPTOP.read_text().replace("slo: {", "slo: {tenants: {demo: {availability: 0.9995}}, ", 1)
                    .replace("../prices", str(LAPTOP.parents[1] / "prices")))
    counted = "".join(f'flotilla_{name}_{what}_total{{model="qwen",tenant="demo",promise="availability"}} {n}\n'
                      for name in ("slo", "tenant_promise") for what, n in (("eligible", 10_000), ("missed", 2)))
    with page(counted) as exporter:
        done = CliRunner().invoke(app, ["top", "--once", "--every", "0.5", "--metrics", exporter],
                                  env={"FLOTILLA_FLEET": str(file)})
    assert not done.exception, done.exception
    lines = [line.split() for line in done.stdout.splitlines() if "99.98%" in line]
    assert [line[:5] for line in lines] == [["qwen", "99.98%", "80%", "–", "–"],
                                            ["qwen", "to", "demo", "99.98%", "60%"]]


def test_what_is_wrong_is_said() -> None:
    assert isinstance(found := top("--pods", "http://127.0.0.1:1/metrics").exception, ConfigError), found
    assert isinstance(found := top("--metrics", "http://127.0.0.1:1/metrics").exception, FleetNotRunning), found
