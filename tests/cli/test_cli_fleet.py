"""`flotilla check` and `flotilla models` show a fleet's adapters, fallbacks and routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.cli.fleet import check, models, spread
from serving.cli.load import context
from serving.errors import ConfigError
from serving.fleet.accelerator_book import COLUMNS
from serving.fleet.catalogue import load

ROOT = Path(__file__).resolve().parents[2]
LAPTOP = ROOT / "deployments" / "fleets" / "laptop.yaml"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet of two models with an adapter and two routes."""
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "fleet.yaml"
    path.write_text(f"""\
name: two
prices: {ROOT / "deployments" / "prices" / "api.json"}
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
    out = capsys.readouterr().out
    assert "fleet two, 2 models, 1 adapter, 2 routes, $0.500 per hour at minimum" in out
    check(file, json=True)
    told = json.loads(capsys.readouterr().out)
    (book, version), = told.pop("price_books").items()
    assert book.endswith("api.json") and version.startswith("2026-11-23-") and f"{book}: {version}" in out
    assert [line in out for line in told["warnings"]] == [True, True]
    told["warnings"] = [line.split(";")[0] for line in told["warnings"]]
    missing = "no comparator that is same_model_hosted, cheapest_proprietary, frontier"
    assert told == {
        "ok": True, "fleet": "two", "models": ["qwen", "llama"], "routes": ["chat", "solo"],
        "presets": [], "licences": {},
        "adapters": ["qwen:pirate"], "usd_per_hour_at_minimum": [0.5, 0.5], "price_changes": [],
        "warnings": [f"models.qwen: {missing}", f"models.llama: {missing}"],
    }


@pytest.mark.parametrize(("said", "words"), [
    ("engine: {args: {data_parallel_size: 16, enable_expert_parallel: true}}",
     "models.kimi: 16 data-parallel ranks have 16 devices; a replica of several ranks must be on one host, of 8 at "),
    ("engine: {tensor_parallel_size: 8, pipeline_parallel_size: 2}", ""),
])
def test_check_refuses_what_no_cluster_could_hold(tmp_path: Path, said: str, words: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(f"""\
name: one
prices: {ROOT / "deployments" / "prices" / "api.json"}
accelerators: {{h200: {{kind: gpu, type: H200, memory_gib: 141, price_usd_per_hour: 4}}}}
models:
  kimi:
    source: moonshotai/Kimi-K2-Instruct-0905
    architecture: DeepseekV3ForCausalLM
    accelerator: h200
    slo: {{ttft_ms: 4000, tpot_ms: 100}}
    {said}
tenants: {{demo: {{}}}}
""")
    if not words:
        return check(path)
    with pytest.raises(ConfigError, match=words):
        check(path)


def test_presets_are_listed_with_their_versions(capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    file = LAPTOP.with_name("assistants.yaml")
    check(file)
    assert "fleet assistants, 1 model, 2 presets" in capsys.readouterr().out
    models(file)
    out = capsys.readouterr().out
    spec = load(file).presets["shopping-assistant"]
    for part in (f"shopping-assistant@1  {'':10}{spec.versions['1'].digest}",
                 f"shopping-assistant@2 (current)  {spec.versions['2'].digest}", "look_up_order, hand_over"):
        assert part in out


def test_check_counts_what_the_fleet_costs_beside_its_replicas(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overhead = "{gateway_usd_per_hour: 0.01, head_usd_per_hour: 0.2, storage_usd_per_hour: 0.03}"
    file.write_text(f"{file.read_text()}costs: {{overhead: {overhead}}}\ngateway: {{replicas: 3}}\n")
    check(file)
    assert "$0.760 per hour at minimum" in capsys.readouterr().out


@pytest.fixture
def gpus(file: Path) -> Path:
    """The same fleet on GPUs whose price changes in a hundred years."""
    dated = "2026-01-01T00:00:00Z,a list"
    file.with_name("accelerators.csv").write_text(f"""\
{",".join(COLUMNS)}
H100,aws,us-east-1,p5.48xlarge,on_demand,6.88,8,{dated}
H100,aws,us-east-1,p5.48xlarge,spot,2.12,8,{dated}
H100,nebius,,,on_demand,2.95,,{dated}
H100,nebius,,,on_demand,3.1,,2126-01-01T00:00:00Z,announced
""")
    file.write_text(file.read_text().replace(
        "accelerators: {core: {kind: cpu, memory_gib: 2, price_usd_per_hour: 0.5}}",
        "accelerator_prices: accelerators.csv\naccelerators: "
        "{core: {kind: gpu, type: H100, memory_gib: 80, price: {provider: nebius}}}"))
    return file


@pytest.mark.parametrize(("step_s", "refused"), [(0.01, False), (0.2, True)])
def test_check_holds_promises_to_what_a_replica_was_seen_to_do(file: Path, tmp_path: Path, step_s: float,
                                                              refused: bool) -> None:
    (profiles := tmp_path / "profiles.yaml").write_text(
        f"profiles: {{qwen: {{fixed_s: {step_s}, token_s: 0.0001, attention_s: 0, cache_s: 0, kv_tokens: 4096}}}}\n")
    if not refused:
        return check(file, profiles=profiles)
    with pytest.raises(ConfigError) as error:
        check(file, profiles=profiles)
    assert "models.qwen.slo: impossible" in str(error.value)
    assert "200 ms per further one (promised 80)" in str(error.value)
    with pytest.raises(ConfigError, match="no such file"):
        check(file, profiles=tmp_path / "none.yaml")
    file.write_text(file.read_text().replace("tpot_ms: 80}", "tpot_ms: 300, tenants: {demo: {tpot_ms: 80}}}"))
    with pytest.raises(ConfigError, match=r"models\.qwen\.slo\.tenants\.demo: impossible"):
        check(file, profiles=profiles)


def test_check_tells_a_price_change_before_it_comes(gpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(gpus)
    out = capsys.readouterr().out
    assert "$2.95 per hour at minimum" in out and "price book accelerators.csv: 2126-01-01-" in out
    assert "models.llama: a replica costs $3.10 per hour from 2126-01-01T00:00:00Z on" in out


def test_where_the_node_decides_check_tells_the_range(gpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpus.write_text(gpus.read_text().replace("{provider: nebius}", "{from_node_labels: true}"))
    check(gpus)
    assert "$2.12 to $6.88 (by the nodes' labels) per hour at minimum" in capsys.readouterr().out
    models(gpus)
    assert "$2.12–$6.88" in capsys.readouterr().out
    models(gpus, json=True)
    told = json.loads(capsys.readouterr().out)["llama"]
    assert (told["price_usd_per_hour"], told["price_usd_per_hour_range"]) == (None, [2.12, 6.88])
    assert context(load(gpus), gpus)["models"]["llama"]["price_usd_per_hour"] is None


def test_a_role_that_is_there_is_not_missed(capsys: pytest.CaptureFixture[str]) -> None:
    check(LAPTOP, json=True)
    assert json.loads(capsys.readouterr().out)["warnings"] == []


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
    assert "price book 2026-11-23-" in out and "×1" in out


@pytest.mark.parametrize(("variants", "text"), [
    ({"a": 1}, "a 100%"), ({"a": 90, "b": 10}, "a 90%, b 10%"), ({"a": 2, "b": 1}, "a 66.7%, b 33.3%"),
    ({"a": 9_999, "b": 1}, "a 100%, b 0.01%"),
])
def test_weights_are_shown_as_shares(variants: dict[str, int], text: str) -> None:
    assert spread(variants) == text
