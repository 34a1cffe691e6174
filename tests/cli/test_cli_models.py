"""`flotilla catalogue` and `flotilla fit` tell what they know, in tables and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from serving.cli import fleet
from serving.cli.models import catalogue_, fit_
from serving.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER, BOOK = ROOT / "deployments" / "catalogue", ROOT / "deployments" / "prices" / "accelerators.csv"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_catalogue_lists_every_model_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue_(folder=FOLDER)
    lines = capsys.readouterr().out.splitlines()
    llama = next(line for line in lines if line.startswith("llama/llama-3.1-8b"))
    assert "Llama 3.1 Community License (gated)" in llama and "131,072" in llama
    catalogue_(folder=FOLDER, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["deepseek/deepseek-v3.1"]["kv_layout"] == "MLA" and len(told) == len(list(FOLDER.glob("*/*.yaml")))


def test_one_entry_is_shown_with_its_sources_and_what_no_one_checked(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue_("Qwen/Qwen3.5-397B-A17B", FOLDER)
    out = capsys.readouterr().out
    assert "hybrid: linear attention and GQA" in out and "30.0 KiB in 16 bits, and" in out
    assert "not verified: " in out and "source of config: " in out and "H200 x8 bf16" in out
    catalogue_("gpt-oss-20b", FOLDER, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "gpt-oss/gpt-oss-20b" and told["kv_bytes_per_token"] == 12 * 2048


def test_the_schema_of_entries_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue_(schema=True)
    assert json.loads(capsys.readouterr().out)["title"] == "Entry"


def test_fit_compares_what_holds_it_by_price(capsys: pytest.CaptureFixture[str]) -> None:
    fit_("qwen/qwen3-8b", context=16384, concurrency=8, folder=FOLDER, prices=BOOK, capacity="on_demand", kv="auto")
    out = capsys.readouterr().out
    cheapest = next(line for line in out.splitlines() if "cheapest" in line)
    assert cheapest.split()[0] == "A100-80GB" and "$1.29" in cheapest
    assert "144.0 KiB per token" in out and "roofline estimates" in out
    fit_("qwen/qwen3-8b", context=16384, concurrency=8, folder=FOLDER, prices=BOOK, capacity="on_demand", kv="fp8",
         json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["kv_bytes_per_token"] == 72 * 1024 and told["choices"][0]["estimate"]["method"] == "roofline"
    prices = [choice["usd_per_hour"] for choice in told["choices"]]
    assert prices == sorted(prices) and all(choice["max_concurrency"] >= 8 for choice in told["choices"])


def test_fit_of_one_accelerator_shows_every_number_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    fit_("gpt-oss-120b", "H100", context=131072, concurrency=1, folder=FOLDER, prices=BOOK, capacity="on_demand",
         kv="auto")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("H100 x")]
    assert rows[0][:2] == ["H100", "x1"] and rows[0][-1] == "no"
    assert rows[1][:2] == ["H100", "x2"] and rows[1][-1] == "fits"


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_a_terminal_and_break_no_name(columns: int, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    options = {"folder": FOLDER, "prices": BOOK, "capacity": "on_demand", "kv": "auto", "concurrency": 4}

    def table(begins: str) -> list[str]:
        lines = capsys.readouterr().out.splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith(begins))
        notes = ("room:", "+2:", "weights in", "limits:")  # these are wrapped by the terminal
        last = next((n for n in range(first, len(lines)) if not lines[n].strip() or lines[n].startswith(notes)),
                    len(lines))
        assert all(len(line) <= columns for line in lines[first:last])
        return lines[first:last]

    catalogue_(folder=FOLDER)
    names = {line.split()[0] for line in table("model") if line[:1].strip()}
    assert {f.stem for f in FOLDER.glob("*/*.yaml")} <= {name.rpartition("/")[2] for name in names}
    catalogue_("qwen3.5-397b-a17b", FOLDER)
    assert any(line.startswith("H200 x8 bf16") for line in table("variant"))
    fit_("qwen3-8b", **options)  # type: ignore[arg-type]
    assert any(line.startswith("A100-80GB  bf16   $1.29") for line in table("holds it"))
    fit_("gpt-oss-120b", "A100-80GB", **options)  # type: ignore[arg-type]
    assert any(line.startswith("A100-80GB x16  mxfp4") for line in table("devices"))


def test_fit_says_when_nothing_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        fit_("kimi/kimi-k3", "L4", concurrency=1, folder=FOLDER, prices=BOOK, capacity="on_demand", kv="auto")
    assert caught.value.exit_code == 1 and "Nothing that is known here holds 1 request" in capsys.readouterr().out


def test_fit_reads_a_checkpoints_own_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256,
              "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
              "max_position_embeddings": 8192, "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fit_(str(tmp_path), concurrency=1, folder=FOLDER, prices=BOOK, capacity="on_demand", kv="auto", json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"] == 8_030_261_248 and told["choices"][0]["precision"] == "fp8"
    config["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="'gptq' cannot be sized"):
        fit_(str(tmp_path), folder=FOLDER, prices=BOOK)
    with pytest.raises(ConfigError, match="not a readable config.json"):
        fit_(str(tmp_path / "none.json"), folder=FOLDER, prices=BOOK)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"accelerator": "H10"}, "did you mean 'H100'"),
    ({"precision": "fp88"}, "did you mean 'fp8'"),
    ({"context": 50_000}, "takes 40,960 tokens at most")])
def test_wrong_arguments_name_the_right_ones(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit_("qwen/qwen3-8b", folder=FOLDER, prices=BOOK, **arguments)  # type: ignore[arg-type]


def test_check_and_models_show_licences_and_little_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(f"""\
name: rented
prices: {ROOT / "deployments/prices/api.json"}
catalogue: {FOLDER}
accelerators: {{h100: {{kind: gpu, type: H100, memory_gib: 79.6, price_usd_per_hour: 2.95}}}}
models:
  oss: {{catalogue: gpt-oss-120b, engine: {{tensor_parallel_size: 1, max_model_len: 16384}}}}
  llama: {{catalogue: llama/llama-3.1-8b}}
tenants: {{demo: {{}}}}
""")
    fleet.check(file)
    out = capsys.readouterr().out
    assert "licence of llama: Llama 3.1 Community License, gated:" in out
    assert "models.oss: gpt-oss-120b leaves" in out and "try it first" in out and "models.llama: Llama" not in out
    fleet.check(file, json=True)
    assert json.loads(capsys.readouterr().out)["licences"]["llama"]["gated"] is True
    fleet.models(file)
    assert "Llama 3.1 Community License (gated)" in capsys.readouterr().out
