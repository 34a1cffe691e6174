"""A fleet file is read whole or refused with a message that helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, load
from serving.fleet.config import parse
from serving.fleet.money import nanousd

REPOSITORY = Path(__file__).parents[2]
FAMILIES = ("qwen3", "llama")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), FAMILIES)
    return str(caught.value)


def test_the_sample_is_right(tmp_path: Path) -> None:
    fleet = load(write(tmp_path), FAMILIES)
    assert list(fleet.models) == ["qwen", "llama"]
    assert fleet.models["qwen"].aliases == ("qwen3", "small")
    assert fleet.models["qwen"].small_family == "qwen3"
    assert fleet.models["llama"].small_family is None
    assert fleet.gateway.max_body_bytes == 20 * 1024 * 1024


def test_a_replica_costs_what_its_devices_cost(tmp_path: Path) -> None:
    fleet = load(write(tmp_path))
    assert fleet.price_nanousd_per_hour("llama") == nanousd("0.0416")
    assert fleet.price_nanousd_per_hour("qwen") == 2 * nanousd("0.0416")


def test_the_laptop_fleet_loads() -> None:
    from serving import checkpoints

    fleet = load(REPOSITORY / "deployments/fleets/laptop.yaml", checkpoints.families(), checkpoints.ADAPTERS)
    assert len(fleet.models) >= 3
    assert all(model.comparators for model in fleet.models.values())


# (what stands in the sample, what is put there, part of the line that the message names, what it must say)
WRONG = {
    "unknown key at the top": (
        "tenants:",
        "tennants:\n  x: {}\ntenants:",
        "tennants",
        ["did you mean 'tenants'?"],
    ),
    "unknown key of a model": (
        "    aliases:",
        "    aliasses:",
        "aliasses",
        ["models.qwen.aliasses", "'aliases'?"],
    ),
    "unknown key of an engine": (
        "max_model_len:",
        "max_modle_len:",
        "max_modle_len",
        ["did you mean 'max_model_len'?"],
    ),
    "unknown key of an accelerator": ("    kind: cpu", "    kindd: cpu", "kindd", ["did you mean 'kind'?"]),
    "unknown key of a comparator": (
        "{price: api-one,",
        "{prise: api-one,",
        "prise",
        ["comparators.0", "'price'?"],
    ),
    "unknown key far from all": (
        "slo: {ttft_ms",
        "slo: {zzz: 1, ttft_ms",
        "zzz",
        ["known keys: availability, goodput, latency, tenants, tpot_ms, ttft_ms"],
    ),
    "a promise to a tenant that is not there": (
        "slo: {ttft_ms",
        "slo: {tenants: {dema: {ttft_ms: 5}}, ttft_ms",
        "dema",
        ["models.qwen.slo.tenants.dema", "did you mean 'demo'?"],
    ),
    "a promise of nothing": (
        "slo: {ttft_ms",
        "slo: {tenants: {demo: {}}, ttft_ms",
        "demo",
        ["models.qwen.slo.tenants.demo", "promises nothing of its own"],
    ),
    "a key that is missing": (
        "    architecture: Qwen3ForCausalLM\n",
        "",
        "qwen:",
        ["architecture", "is missing"],
    ),
    "text for a number": (
        "max_model_len: 2048",
        "max_model_len: long",
        "long",
        ["max_model_len", "found 'long'"],
    ),
    "a quoted number": ("max_model_len: 2048", 'max_model_len: "2048"', "2048", ["found '2048'"]),
    "a number for text": ("source: org/llama", "source: 7", "source: 7", ["models.llama.source", "found 7"]),
    "a number out of range": (
        "max_model_len: 2048",
        "max_model_len: 2",
        "max_model_len: 2",
        ["16", "found 2"],
    ),
    "an accelerator that is not there": (
        "accelerator: core",
        "accelerator: kore",
        "kore",
        ["did you mean 'core'?"],
    ),
    "a price that is not there": (
        "api-one",
        "api-onn",
        "api-onn",
        ["comparators.0.price", "did you mean 'api-one'?"],
    ),
    "a family that is not there": ("small:qwen3", "small:qwen4", "qwen4", ["models.qwen.source", "'qwen3'?"]),
    "a role that is not there": (
        "role: frontier",
        "role: best",
        "role: best",
        ["'frontier'", "found 'best'"],
    ),
    "a bad name": ("  llama:", "  Llama 3:", "Llama 3", ["is not a name", "a-z"]),
    "a name of two models": ("[qwen3, small]", "[llama]", "aliases: [llama]", ["'llama'", "choose another"]),
    "an alias twice": ("[qwen3, small]", "[small, small]", "[small, small]", ["'small'", "already names 'qwen'"]),
    "a list that is text": (
        "aliases: [qwen3, small]",
        "aliases: qwen3",
        "aliases: qwen3",
        ["models.qwen.aliases"],
    ),
    "a key twice": ("  demo: {}", "  demo: {}\n  demo: {}", "demo", ["'demo'", "keep one"]),
    "an argument with a field": (
        "max_model_len: 2048",
        "args: {max_model_len: 1}",
        "args:",
        ["has a field of its own"],
    ),
    "an argument that is ours": (
        "max_model_len: 2048",
        "args: {scheduler_cls: x}",
        "args:",
        ["set by Flotilla"],
    ),
    "max below min": (
        "    accelerator: core",
        "    replicas: {min: 3, max: 2}\n    accelerator: core",
        "replicas",
        ["max (2) is below min (3)"],
    ),
    "a GPU type on a CPU": ("kind: cpu", "kind: cpu\n    type: H100", "core:", ["type is for kind: gpu"]),
    "a negative price": ("0.0416", "-1", "price_usd_per_hour", ["must be above 0", "found -1"]),
    "a price of nothing": ("0.0416", "0", "price_usd_per_hour", ["must be above 0", "0.000001", "price_source"]),
    "a price that is text": ("0.0416", '"cheap"', "price_usd_per_hour", ["number of US dollars", "'cheap'"]),
    "a price that is no number": ("0.0416", ".nan", "price_usd_per_hour", ["finite"]),
    "a price without end": ("0.0416", ".inf", "price_usd_per_hour", ["finite"]),
    "memory without end": ("memory_gib: 2", "memory_gib: .inf", "memory_gib", ["finite"]),
    "no models": (
        FLEET[FLEET.index("models:") : FLEET.index("tenants:")],
        "models: {}\n",
        "models",
        ["at least 1"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    right, wrong, line, said = WRONG[name]
    assert right in FLEET
    text = FLEET.replace(right, wrong, 1)
    message = refused(tmp_path, text)
    number = len(text.splitlines()) if name == "a key twice" else line_of(text, line)
    assert f"{tmp_path / 'fleet.yaml'}:{number}: " in message
    for part in said:
        assert part in message


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    message = refused(
        tmp_path, FLEET.replace("max_model_len", "max_len").replace("ttft_ms: 1500", "ttft_ms: soon")
    )
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "empty": ("", "is empty"),
        "comments only": ("# nothing\n", "is empty"),
        "not YAML": ("name: [1, 2\nprices: x\n", ":2: not valid YAML"),
        "a tab": ("name:\n\t- x\n", ":2: not valid YAML"),
        "a control character": ("name: \x01\n", "not valid YAML"),
        "a list": ("- name: x\n", ":1: the file: "),
        "a word": ("hello\n", ":1: the file: "),
        "a key twice": ("name: a\nname: b\n", ":2: 'name' stands here and in line 1"),
        "a key twice, deep": ("models:\n  a:\n    x: 1\n    x: 2\n", ":4: 'x' stands here and in line 3"),
        "a key twice, in a list": ("models:\n  - x: 1\n    x: 2\n", ":3: 'x' stands here and in line 2"),
        "two documents": ("name: a\n---\nname: b\n", "not valid YAML"),
        "a Python object": ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        "an unknown anchor": ("name: *nowhere\n", ":1: not valid YAML"),
        "a value within itself": ("models: &m {a: *m}\n", "models"),
        "a list as key": ("? [a, b]\n: c\n", "not valid YAML"),
        "a day that is not": ("name: 2026-13-45\n", "not valid YAML"),
        "too deep": ("[" * 5_000, "not valid YAML"),
    }.values(),
)
def test_what_is_no_fleet_file_at_all(text: str, said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = FLEET.replace("slo: {ttft_ms", "slo: &slo {ttft_ms", 1)
    text = text.replace(
        "    slo: {ttft_ms: 1500, tpot_ms: 80}\ntenants", "    slo: {<<: *slo, tpot_ms: 9}\ntenants"
    )
    fleet = load(write(tmp_path, text))
    assert (fleet.models["llama"].slo.ttft_ms, fleet.models["llama"].slo.tpot_ms) == (1500, 9)


def test_anchors_that_grow_without_end_do_not_hang() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(ConfigError, match="a29"):
        parse("\n".join(lines), "bomb", Fleet)


def test_a_price_book_that_is_not_there(tmp_path: Path) -> None:
    assert "no.json" in refused(tmp_path, FLEET.replace("prices.json", "no.json"))


def test_the_fleet_cannot_be_changed(tmp_path: Path) -> None:
    fleet = load(write(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        fleet.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        fleet.models["qwen"].engine.max_model_len = 1  # type: ignore[misc]


@given(
    st.integers(0, len(FLEET) - 1), st.integers(1, 12), st.text("aZ0 :-{}[]&*#!?|>'\"%@\n\t,.<=~", max_size=6)
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_in_the_file_the_answer_is_a_fleet_or_a_message(
    at: int, length: int, put: str
) -> None:
    try:
        assert isinstance(parse(FLEET[:at] + put + FLEET[at + length :], "fleet.yaml", Fleet), Fleet)
    except ConfigError as error:
        assert "fleet.yaml" in str(error)
