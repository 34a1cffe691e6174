"""`flotilla check` and `flotilla models` show a fleet's adapters, fallbacks and routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.cli.fleet import check, models, spread

ROOT = Path(__file__).resolve().parents[2]
LAPTOP = ROOT / "deployments" / "fleets" / "laptop.yaml"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet of two models with an adapter and two routes."""
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "fleet.yaml"
    path.write_text(f"""\
name: two
prices: {ROOT / "deployments" / "prices" / "api_prices.json"}
accelerators: {{core: {{kind: cpu, memory_gib: 2, price_usd_per_hour: 0.5}}}}
models:
  qwen:
    source: small:qwen3
    architecture: Qwen3ForCausalLM
    accelerator: core
    slo: &slo {{ttft_ms: 1500, tpot_ms: 80}}
    replicas: {{min: 0, max: 1}}
    adapters: {{pirate: {{source: "small:lora", description: says arr}}}}
    fallback: [llama]
  llama: {{source: small:llama, architecture: LlamaForCausalLM, accelerator: core, slo: *slo}}
routes:
  chat: {{variants: {{qwen: 9, llama: 1}}, aliases: [talk], description: canary}}
  solo: {{variants: {{llama: 1}}}}
tenants: {{demo: {{models: [chat]}}}}
""")
    return path


def test_check_counts_what_there_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(file)
    assert "fleet two, 2 models, 1 adapter, 2 routes, $0.500 per hour at minimum" in capsys.readouterr().out
    check(file, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": True, "fleet": "two", "models": ["qwen", "llama"], "routes": ["chat", "solo"],
        "adapters": ["qwen:pirate"],
    }


def test_models_shows_what_leads_where(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(file)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["qwen", "small:qwen3", "core", "0–1", "$0.500", "llama"] in rows
    assert ["qwen:pirate", "small:lora", "says", "arr"] in rows
    assert ["chat", "talk", "qwen", "90%,", "llama", "10%", "canary"] in rows


def test_a_program_finds_a_models_routes_beside_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(file, json=True)
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["qwen", "llama"]
    assert (told["qwen"]["routes"], told["llama"]["routes"]) == ({"chat": 9}, {"chat": 1, "solo": 1})
    assert told["qwen"]["adapters"]["pirate"]["source"] == "small:lora" and told["qwen"]["price_usd_per_hour"] == 0.5


def test_a_fleet_without_them_shows_none_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    check(LAPTOP)
    models(LAPTOP)
    out = capsys.readouterr().out
    assert "3 models, $" in out and "spread over" not in out


@pytest.mark.parametrize(("variants", "text"), [
    ({"a": 1}, "a 100%"), ({"a": 90, "b": 10}, "a 90%, b 10%"), ({"a": 2, "b": 1}, "a 66.7%, b 33.3%"),
    ({"a": 9_999, "b": 1}, "a 100%, b 0.01%"),
])
def test_weights_are_shown_as_shares(variants: dict[str, int], text: str) -> None:
    assert spread(variants) == text
