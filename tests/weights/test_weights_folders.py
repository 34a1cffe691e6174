"""Folders of weights: what is missing or cut short is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.errors import WeightsDamaged, WeightsError, WeightsGated, WeightsMissing
from serving.weights import Hub, Kind, Wanted, kind_of, prepare


def refused(kind: type[WeightsError], source: Path | str) -> str:
    with pytest.raises(kind) as caught:
        prepare(Wanted(str(source)), Hub())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_folder_is_what_the_engine_gets(folder: Path) -> None:
    assert prepare(Wanted(str(folder), architecture="Qwen3ForCausalLM"), Hub()) == str(folder)


def test_a_small_checkpoint_is_whole(tmp_path: Path) -> None:
    from serving import checkpoints

    made = checkpoints.make_at("qwen3", tmp_path / "mine")
    assert prepare(Wanted(str(made), architecture="Qwen3ForCausalLM"), Hub()) == str(made)


def test_a_missing_folder_names_the_nearest(folder: Path) -> None:
    assert str(folder) in refused(WeightsMissing, folder.with_name("tinny"))


@pytest.mark.parametrize(("gone", "says"), [("config.json", "no config.json"), ("model.safetensors", "no weights")])
def test_a_missing_file_is_named(folder: Path, spoil: Callable[[str], None], gone: str, says: str) -> None:
    spoil(gone)
    assert says in refused(WeightsMissing, folder)


def test_a_file_in_place_of_a_folder(folder: Path) -> None:
    assert "name the folder" in refused(WeightsMissing, folder / "model.safetensors")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:6],
                                    lambda data: b"\xff" * 8 + data[8:], lambda data: data[:8] + b"{" + data[9:12]])
def test_weights_that_were_cut_short_or_overwritten(folder: Path, change: Callable[[bytes], bytes]) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    assert "model.safetensors" in refused(WeightsDamaged, folder)


def test_a_part_that_the_index_names_and_that_is_not_there(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(WeightsDamaged, folder)
    assert "3 files" in said and "2 are not there" in said and "model-2.safetensors" in said


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(WeightsDamaged, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    assert "config.json" in refused(WeightsGated, folder)


def test_formats_without_a_config(folder: Path, spoil: Callable[[str], None]) -> None:
    spoil("config.json")
    (folder / "params.json").write_text("{}")
    assert prepare(Wanted(str(folder)), Hub()) == str(folder)
    gguf = folder / "model.gguf"
    gguf.write_bytes(b"GGUF")
    assert prepare(Wanted(str(gguf)), Hub()) == str(gguf)


@pytest.mark.parametrize(("source", "kind"), [
    ("small:qwen3", Kind.SMALL), ("Qwen/Qwen3-0.6B", Kind.HUB), ("gpt2", Kind.HUB), ("/models/x", Kind.FOLDER),
    ("./x", Kind.FOLDER), ("~/x", Kind.FOLDER), ("s3://b/x", Kind.BUCKET), ("gs://b/x", Kind.BUCKET),
])
def test_what_a_source_is(source: str, kind: Kind) -> None:
    assert kind_of(source) is kind


def test_a_folder_that_is_there_goes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kind_of("org/name") is Kind.HUB
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert kind_of("org/name") is Kind.FOLDER


@pytest.mark.parametrize("source", ["a/b/c", "org/na me", "", "ftp://host/x", "org//x", "a--b/c"])
def test_what_no_source_can_be(source: str) -> None:
    with pytest.raises(WeightsMissing):
        kind_of(source)
