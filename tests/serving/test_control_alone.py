"""On a cluster the control process serves the admin API from a fleet file alone, without a plan and without a book."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_admin_api_is_served_from_a_fleet_file(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = yaml.safe_load((ROOT / "deployments" / "fleets" / "one-gpu.yaml").read_text())
    prices = ROOT / "deployments" / "prices"
    told |= {"prices": str(prices / "api.json"), "accelerator_prices": str(prices / "accelerators.csv"),
             "admin": {"enabled": True, "port": port}}
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(told))
    env = os.environ | {"FLOTILLA_STATE_DIR": str(tmp_path / "state"), "FLOTILLA_KEY_PEPPER": "pepper"}
    process = subprocess.Popen([sys.executable, "-m", "serving.control", "--fleet", str(file)], cwd=ROOT, env=env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            code = urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/v1/tenants", timeout=30).status
        except urllib.error.HTTPError as error:
            code = error.code
        assert code == 401, "it answers, and asks who is there"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert not list((tmp_path).rglob("quotas.sock"))
