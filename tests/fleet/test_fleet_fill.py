"""A model that names a catalogue entry needs one line; what the file says itself wins; what cannot fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, load

ROOT = Path(__file__).parents[2]
FILE = f"""\
name: rented
prices: {ROOT / "deployments/prices/api.json"}
accelerator_prices: {ROOT / "deployments/prices/accelerators.csv"}
catalogue: {ROOT / "deployments/catalogue"}
accelerators:
  big: {{kind: gpu, type: H200, memory_gib: 140.4, price: {{provider: nebius}}}}
  usual: {{kind: gpu, type: H100, memory_gib: 79.6, price: {{provider: nebius}}}}
  cores: {{kind: cpu, memory_gib: 8, price_usd_per_hour: 0.1}}
models:
  it: MODEL
tenants: {{demo: {{}}}}
"""


def fleet(folder: Path, model: str, file: str = FILE) -> Fleet:
    (folder / "fleet.yaml").write_text(file.replace("MODEL", model))
    return load(folder / "fleet.yaml")


def refused(folder: Path, model: str, file: str = FILE) -> str:
    with pytest.raises(ConfigError) as caught:
        fleet(folder, model, file)
    return str(caught.value)


def test_one_line_is_enough(tmp_path: Path) -> None:
    model = fleet(tmp_path, "{catalogue: qwen/qwen3-8b}").models["it"]
    assert (model.source, model.revision) == ("Qwen/Qwen3-8B", "b968826d9c46dd6066d109eabc6255188de91218")
    assert (model.architecture, model.accelerator) == ("Qwen3ForCausalLM", "usual")  # the cheaper of the two
    assert (model.engine.max_model_len, model.engine.max_num_seqs) == (40960, 256)
    assert (model.engine.tool_call_parser, model.engine.reasoning_parser) == ("hermes", "qwen3")
    assert [c.price for c in model.comparators] == ["gpt-6-luna", "gpt-5.5"]
    assert model.licence is not None and (model.licence.name, model.licence.gated) == ("Apache-2.0", False)
    assert model.slo.ttft_ms > 0 and model.catalogue == "qwen/qwen3-8b"


def test_a_replica_of_several_devices_costs_them_all(tmp_path: Path) -> None:
    found = fleet(tmp_path, "{catalogue: deepseek-r1-0528}")  # its variant for H100 takes 16 of them
    model = found.models["it"]
    assert (model.accelerator, model.devices, found.variant("it")) == ("big", 8, "big x8")
    assert model.engine.args["enable_expert_parallel"] is True
    assert found.price_nanousd_per_hour("it") == 8 * 3_500_000_000


def test_stages_count_as_devices(tmp_path: Path) -> None:
    model = fleet(tmp_path, "{catalogue: deepseek/deepseek-r1-0528, accelerator: usual}").models["it"]
    assert (model.engine.tensor_parallel_size, model.engine.pipeline_parallel_size, model.devices) == (8, 2, 16)


def test_what_the_file_says_wins(tmp_path: Path) -> None:
    model = fleet(tmp_path, """{catalogue: llama/llama-3.3-70b, accelerator: big, source: /mnt/llama,
      slo: {ttft_ms: 90, tpot_ms: 80}, comparators: [],
      engine: {max_model_len: 4096, reasoning_parser: null, args: {enable_prefix_caching: false}}}""").models["it"]
    assert (model.source, model.revision, model.slo.ttft_ms, model.comparators) == ("/mnt/llama", None, 90, ())
    assert (model.engine.max_model_len, model.engine.max_num_seqs) == (4096, 64)
    # arguments are joined: the variant's, and the file's
    assert model.engine.args == {"kv_cache_dtype": "fp8", "enable_prefix_caching": False}


def test_a_precision_may_be_chosen(tmp_path: Path) -> None:
    model = fleet(tmp_path, "{catalogue: qwen/qwen3-32b, precision: bf16}").models["it"]
    assert (model.source, model.accelerator, model.devices) == ("Qwen/Qwen3-32B", "big", 1)
    assert "'fp9' is not known; did you mean 'fp8'" in refused(tmp_path, "{catalogue: qwen/qwen3-32b, precision: fp9}")


def test_a_processor_takes_the_parsers_and_its_own_sizes(tmp_path: Path) -> None:
    model = fleet(tmp_path, "{catalogue: qwen/qwen3-0.6b, accelerator: cores, "
                            "engine: {max_model_len: 2048, kv_cache_mib: 512}}").models["it"]
    assert (model.engine.max_model_len, model.engine.tool_call_parser) == (2048, "hermes")


def test_an_entry_that_is_not_there_names_the_nearest_and_its_line(tmp_path: Path) -> None:
    said = refused(tmp_path, "{catalogue: qwen/qwen3-80}")
    assert "fleet.yaml:10: models.it.catalogue" in said and "did you mean 'qwen/qwen3-8b'" in said


def test_without_a_variant_the_file_must_say_where(tmp_path: Path) -> None:
    said = refused(tmp_path, "{catalogue: kimi/kimi-k3}")
    assert "has variants for B200 x16 mxfp4" in said and "big (H200), usual (H100), cores (cpu)" in said


def test_a_folder_that_is_not_there_is_told_only_if_it_is_needed(tmp_path: Path) -> None:
    elsewhere = FILE.replace(str(ROOT / "deployments/catalogue"), "nowhere")
    assert "there is no catalogue of models" in refused(tmp_path, "{catalogue: qwen/qwen3-8b}", elsewhere)
    fleet(tmp_path, "{source: org/m, architecture: A, accelerator: cores, slo: {ttft_ms: 1, tpot_ms: 1}}", elsewhere)


def test_a_model_that_cannot_fit_is_refused_with_numbers_and_what_could(tmp_path: Path) -> None:
    said = refused(tmp_path, "{catalogue: gpt-oss/gpt-oss-120b, accelerator: usual, engine: {tensor_parallel_size: 1}}")
    assert "fleet.yaml:10: models.it.catalogue: gpt-oss-120b (mxfp4) does not fit H100 of 79.6 GiB" in said
    assert "66.0 GiB of weights" in said and "one request of 131,072 tokens needs 5.1" in said
    assert "would fit here" in said and "it fits H200 or B200" in said
    # and what it proposes is true
    length = int(said.split("max_model_len of ")[1].split()[0].replace(",", ""))
    args = f"tensor_parallel_size: 1, max_model_len: {length}"
    fleet(tmp_path, f"{{catalogue: gpt-oss-120b, accelerator: usual, engine: {{{args}}}}}")
    longer = args.replace(str(length), str(length + 64))
    assert "does not fit" in refused(tmp_path, f"{{catalogue: gpt-oss-120b, accelerator: usual, engine: {{{longer}}}}}")


def test_weights_that_are_too_large_alone_say_by_how_much(tmp_path: Path) -> None:
    said = refused(tmp_path, "{catalogue: llama/llama-3.3-70b, accelerator: usual, precision: bf16, "
                             "engine: {tensor_parallel_size: 1}}")
    assert "GiB too much" in said and "the catalogue also has fp8, nvfp4 weights" in said


def test_a_split_that_no_engine_makes_says_why(tmp_path: Path) -> None:
    said = refused(tmp_path, "{catalogue: qwen/qwen3-235b-a22b-2507, precision: fp8, accelerator: big, "
                             "engine: {tensor_parallel_size: 8}}")
    assert "experts are 1536 wide and fp8 comes in blocks of 128" in said


def test_a_cache_of_fixed_size_counts_as_it_is(tmp_path: Path) -> None:
    small = "{catalogue: qwen/qwen3-8b, accelerator: usual, engine: {kv_cache_mib: 1024}}"
    assert "leave 1.0 GiB for the KV cache" in refused(tmp_path, small)


def test_small_stand_ins_are_not_measured(tmp_path: Path) -> None:
    fleet(tmp_path, "{catalogue: llama/llama-3.3-70b, accelerator: cores, source: 'small:llama'}")


def test_the_shipped_fleet_of_open_models_is_right() -> None:
    found = load(ROOT / "deployments/fleets/open-models.yaml")
    assert len(found.models) == 10 and all(model.catalogue and model.licence for model in found.models.values())
