"""`flotilla simulate` as its user calls it, on a trace of a few requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FLEET = Path("deployments/fleets/one-gpu.yaml")
PROFILE = ("profiles:\n  qwen: {fixed_s: %s, token_s: 5.0e-5, attention_s: 0, cache_s: 0, kv_tokens: 100000, "
           "max_num_seqs: 16, max_batched_tokens: 2048, start_s: 5}\n")


def simulate(folder: Path, *more: str, fixed_s: float | None = 0.012,
             fleet: Path = FLEET) -> subprocess.CompletedProcess[str]:
    trace, profiles = folder / "trace.jsonl", folder / "profiles.yaml"
    trace.write_text("".join(json.dumps({"at_s": n * 1.0, "input_tokens": 300, "output_tokens": 20}) + "\n"
                             for n in range(60)))
    command = [sys.executable, "-m", "serving", "simulate", str(fleet), "--trace", str(trace), *more]
    if fixed_s is not None:
        profiles.write_text(PROFILE % fixed_s)
        command += ["--profiles", str(profiles)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SIMULATOR_LOOPS": "plain"})


def test_what_a_policy_would_have_done_adds_up(tmp_path: Path) -> None:
    said = simulate(tmp_path, "--json")
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)["models"]["qwen"]
    assert told["requests"] == 60 and told["unanswered"] == 0 and told["failed"] == 0
    assert told["ledger_nanousd"]["residual"] == 0 and told["ledger_nanousd"]["direct"] > 0
    assert 0 < told["gpu_hours"] <= 60 / 3_600 + 1e-3 and told["attainment"] > 0.8
    assert 12 < told["tpot_ms"]["p50"] < 30


def test_promises_that_no_one_can_keep_are_refused_with_numbers(tmp_path: Path) -> None:
    said = simulate(tmp_path, fixed_s=0.05)
    assert said.returncode == 2 and "50" in said.stderr and "25" in said.stderr and "slo" in said.stderr


def test_a_model_of_the_catalogue_needs_no_profile(tmp_path: Path) -> None:
    said = simulate(tmp_path, "--json", fixed_s=None)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["profiles"]["qwen"]["origin"] == "roofline" and told["models"]["qwen"]["attainment"] > 0.8
    small = simulate(tmp_path, "--model", "qwen", fixed_s=None, fleet=Path("deployments/fleets/laptop.yaml"))
    assert small.returncode == 2 and "models.qwen: small:qwen3" in small.stderr and "--profiles" in small.stderr


def test_an_unknown_policy_and_a_missing_trace_are_told(tmp_path: Path) -> None:
    assert "ray-default" in simulate(tmp_path, "--policy", "rays").stderr
    said = simulate(tmp_path, "--trace", str(tmp_path / "none.csv"))
    assert said.returncode == 2 and "none.csv" in said.stderr


def test_the_models_of_a_route_are_variants_and_spot_nodes_are_reclaimed(tmp_path: Path) -> None:
    said = simulate(tmp_path, "--model", "chat", "--reclaim-h", "0.01", "--json", fixed_s=None,
                    fleet=Path("deployments/fleets/spot-mix.yaml"))
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)["models"]["chat"]
    assert set(told["gpu_hours_by_variant"]) == {"qwen", "qwen-spot"} and told["reclaims"] > 0
    assert sum(told["gpu_hours_by_variant"].values()) == pytest.approx(told["gpu_hours"])
    assert told["requests"] == 60 and told["ledger_nanousd"]["residual"] == 0


def test_what_the_fleet_file_says_of_scaling_holds(tmp_path: Path) -> None:
    text = FLEET.read_text().replace("../", str(FLEET.parent.parent.resolve()) + "/")
    own = tmp_path / "fleet.yaml"
    source = "    source: Qwen/Qwen3-8B\n"
    own.write_text(text.replace(source, source + "    replicas: {min: 1, max: 4}\n"
                                "    scaling: {policy: ours, spares: 2, max_usd_per_hour: 6}\n"))
    said = simulate(tmp_path, "--json", fleet=own)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)["models"]["qwen"]
    assert told["replicas_most"] == 2 and told["reasons"]["cost_cap"] > 0  # 2.95 an hour each: a third is too dear
