"""The control process serves the console of its fleet, and ends without waiting for pages that are open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_fleet
import httpx
import yaml

from serving import launch
from serving.ledger import keys
from serving.ledger.keys import Grant
from serving.ledger.store import Ledger
from serving.plan import Changes, Plan
from serving.settings import Settings

http = httpx.Client(trust_env=False, verify=False, timeout=20)


def test_a_console_is_served_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    said = yaml.safe_load(fake_fleet.FLEET)
    said["admin"] = {"enabled": True, "port": launch.free_port()}
    for model in said["models"].values():
        model.pop("comparators", None)
    (tmp_path / "fleet.yaml").write_text(json.dumps(said))
    (tmp_path / "prices.json").write_text('{"origin": "none", "models": {}}')
    state, work = tmp_path / "state", tmp_path / "work"
    work.mkdir()
    settings = Settings(state_dir=state)
    ledger = Ledger.open(settings.database)
    key, _ = keys.create(ledger, "shop", "root", settings.pepper(), 1.0, Grant(scopes=("admin",)))
    ledger.close()
    plan = Plan("0", str(state), str(work), str(tmp_path / "fleet.yaml"), "sample", "http://127.0.0.1:9",
                "http://127.0.0.1:9/metrics", Changes({}))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOTILLA_")}
    with subprocess.Popen([sys.executable, "-m", "serving.control"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=environment | {"FLOTILLA_STATE_DIR": str(state)}) as child:
        try:
            assert child.stdin is not None and child.stdout is not None
            with child.stdin as told:
                told.write(plan.to_json().encode())
            assert child.stdout.readline() == b"ready\n"
            url = f"http://127.0.0.1:{said['admin']['port']}/console"
            assert "Flotilla console" in http.get(url, follow_redirects=True).text
            with http.stream("GET", f"{url}/events", headers={"authorization": f"Bearer {key}"}) as answer:
                lines = answer.iter_lines()
                now = json.loads(next(line for line in lines if line.startswith("data: {")).removeprefix("data: "))
                assert now["fleet"] == "sample" and "cannot be read" in now["trouble"], "no exporter runs here"
                began = time.monotonic()
                child.send_signal(signal.SIGTERM)
                assert child.wait(20) == 0
                assert time.monotonic() - began < 4, "an open page holds up the end"
        finally:
            child.kill()
