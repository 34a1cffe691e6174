"""`flotilla plan` as its user calls it: the plan's own fleet file is one, and what cannot be is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.cli.planning import with_promises
from serving.errors import ConfigError
from serving.fleet.catalogue import load

FLEET = Path("deployments/fleets/one-gpu.yaml")
PROFILE = ("profiles:\n  qwen: {fixed_s: 0.012, token_s: 1.0e-4, attention_s: 0, cache_s: 0, kv_tokens: 100000, "
           "max_num_seqs: 8, max_batched_tokens: 2048, start_s: 5}\n")


def plan(folder: Path, *more: str, gap_s: float = 0.25) -> subprocess.CompletedProcess[str]:
    trace, profiles = folder / "trace.jsonl", folder / "profiles.yaml"
    trace.write_text("".join(json.dumps({"at_s": n * gap_s, "input_tokens": 500, "output_tokens": 60}) + "\n"
                             for n in range(240)))
    profiles.write_text(PROFILE)
    command = [sys.executable, "-m", "serving", "plan", str(FLEET), "--trace", str(trace), "--profiles", str(profiles),
               *more]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SIMULATOR_LOOPS": "plain"})


def test_a_plan_keeps_the_promises_and_its_fleet_file_is_one(tmp_path: Path) -> None:
    out = tmp_path / "plan"
    said = plan(tmp_path, "--slo", "qwen:ttft_ms=900,goodput=0.95", "--times", "4", "--out", str(out), "--json")
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    qwen = told["models"]["qwen"]
    assert qwen["kept"] and qwen["attainment"] >= 0.95 and qwen["slo"]["ttft_ms"] == 900
    assert qwen["replicas"]["max"] > 1 and qwen["usd"] == pytest.approx(told["total"]["usd"])
    assert sum(h["usd"] for h in qwen["hours"]) == pytest.approx(qwen["usd"])
    assert sum(h["requests"] for h in qwen["hours"]) == qwen["requests"] == 960
    loads = {row["times"]: row for row in qwen["sensitivity"]["load"]}
    assert set(loads) == {0.5, 0.75, 1.0, 1.25, 1.5} and loads[1.5]["attainment"] <= loads[0.5]["attainment"]
    assert {p["times"]: p["usd"] / qwen["usd"] for p in qwen["sensitivity"]["price"]} == pytest.approx(
        {t: t for t in loads})
    made = load(out / "fleet.yaml").models["qwen"]
    assert (made.replicas.min, made.replicas.max) == (qwen["replicas"]["min"], qwen["replicas"]["max"])
    assert made.slo.ttft_ms == 900 and made.slo.goodput == 0.95
    assert made.scaling.policy == ("fixed" if qwen["policy"] == "fixed" else "ours")
    page = (out / "plan.html").read_text()
    assert page.count("<svg") >= 4 and "qwen" in page and "<script" not in page
    assert json.loads((out / "plan.json").read_text())["models"]["qwen"]["usd"] == qwen["usd"]


def test_its_tables_fit_a_terminal_and_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    said = plan(tmp_path, "--slo", "ttft_ms=30", gap_s=1.0)
    assert said.returncode == 1 and "cannot keep its promises" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines() if "always as many" in line or " x " in line)


@pytest.mark.parametrize(("said", "words"), [
    ("qwem:ttft_ms=1", "did you mean 'qwen'"), ("ttft=1", "ttft_ms=NUMBER"), ("ttft_ms=fast", "'fast' is no number"),
    ("goodput=2", "less than 1"), ("ttft_ms=-1", "greater than 0")])
def test_wrong_promises_are_refused(said: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_promises(load(FLEET), [said])
