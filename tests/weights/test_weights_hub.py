"""The hub's own client against a hub on loopback: what can go wrong is one sentence, before anything is started."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, FakeRepository

from serving.errors import (
    DiskFull,
    UnsupportedArchitecture,
    WeightsDamaged,
    WeightsError,
    WeightsGated,
    WeightsMissing,
    WeightsUnreachable,
)
from serving.weights import Hub, Wanted, prepare
from serving.weights import hub as of_hub

REPOSITORY = "org/tiny"
AtHub = Callable[..., Hub]


def refused(kind: type[WeightsError], wanted: Wanted, hub: Hub) -> str:
    """The one line of the error."""
    with pytest.raises(kind) as caught:
        prepare(wanted, hub)
    assert type(caught.value) is kind
    said = str(caught.value)
    assert "\n" not in said and wanted.source in said
    return said


def test_a_repository_is_fetched_whole_and_the_engine_gets_its_folder(folder: Path, at_hub: AtHub) -> None:
    notes: list[str] = []
    found = Path(prepare(Wanted(REPOSITORY, architecture="Qwen3ForCausalLM"), at_hub(), notes.append))
    assert found.name == COMMIT
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert len(notes) == 1 and notes[0].startswith("fetching org/tiny")


def test_what_is_in_the_cache_is_not_fetched_again(hub: FakeHub, at_hub: AtHub) -> None:
    prepare(Wanted(REPOSITORY), at_hub())
    hub.asked.clear()
    notes: list[str] = []
    prepare(Wanted(REPOSITORY), at_hub(), notes.append)
    assert hub.asked == ["GET /api/models/org/tiny"] and not notes


def test_a_revision_is_asked_for_by_name_and_by_commit(hub: FakeHub, at_hub: AtHub) -> None:
    for revision in ("v1", COMMIT):
        assert Path(prepare(Wanted(REPOSITORY, revision), at_hub())).name == COMMIT
        assert f"GET /api/models/org/tiny/revision/{revision}" in hub.asked


def test_a_missing_repository(at_hub: AtHub, hub: FakeHub) -> None:
    said = refused(WeightsMissing, Wanted("org/tinny"), at_hub())
    assert hub.url in said and "private" in said and "HF_TOKEN" in said


def test_a_missing_revision(at_hub: AtHub) -> None:
    assert "'v9'" in refused(WeightsMissing, Wanted(REPOSITORY, "v9"), at_hub())


def test_a_gated_repository_says_where_to_accept_its_licence(at_hub: AtHub, hub: FakeHub) -> None:
    said = refused(WeightsGated, Wanted("org/gated"), at_hub())
    assert f"{hub.url}/org/gated" in said and "licence" in said and "HF_TOKEN" in said


def test_a_checksum_that_differs_names_the_file_and_removes_it(at_hub: AtHub, hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY].spoilt = {"model.safetensors"}
    said = refused(WeightsDamaged, Wanted(REPOSITORY), at_hub())
    assert "model.safetensors" in said and "SHA-256" in said
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    hub.repositories[REPOSITORY].spoilt = set()
    assert (Path(prepare(Wanted(REPOSITORY), at_hub())) / "model.safetensors").exists(), "the next start mends it"


def test_small_files_have_a_checksum_too(at_hub: AtHub, hub: FakeHub) -> None:
    hub.repositories[REPOSITORY].spoilt = {"tokenizer.json"}
    assert "git SHA-1" in refused(WeightsDamaged, Wanted(REPOSITORY), at_hub())


def test_a_file_is_held_to_its_checksum_once_and_again_when_it_has_changed(
        at_hub: AtHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, read = at_hub(checked=tmp_path / "state" / "checked.json"), list[str]()
    real = of_hub._sha256
    monkeypatch.setattr(of_hub, "_sha256", lambda path: read.append(path.name) or real(path))
    found = Path(prepare(Wanted(REPOSITORY), hub))
    prepare(Wanted(REPOSITORY), hub)
    assert len(read) == 1
    blob = (found / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    os.utime(blob, (1, 1))
    refused(WeightsDamaged, Wanted(REPOSITORY), hub)


def test_a_full_disk_is_known_before_the_download(at_hub: AtHub, hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY].files["model.safetensors"] += bytes(5_000_000)
    said = refused(DiskFull, Wanted(REPOSITORY), at_hub(free=lambda folder: 1_000_000))
    assert "4.8 MiB" in said and "1.0 MiB are free" in said and "HF_HUB_CACHE" in said
    assert not any("resolve" in line and "safetensors" in line for line in hub.asked)


def test_a_disk_that_fills_up_on_the_way(at_hub: AtHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(name: str, file: str, **_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    assert "No space left" in refused(DiskFull, Wanted(REPOSITORY), at_hub())


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9"  # the discard port: nothing listens
    said = refused(WeightsUnreachable, Wanted(REPOSITORY), Hub(tmp_path / "cache", dead))
    assert dead in said and "HF_ENDPOINT" in said


def test_a_hub_that_does_not_answer_does_not_matter_for_what_is_here(at_hub: AtHub) -> None:
    first = prepare(Wanted(REPOSITORY, COMMIT), at_hub())
    assert prepare(Wanted(REPOSITORY, COMMIT), at_hub(endpoint="http://127.0.0.1:9")) == first


def test_another_architecture_than_the_fleet_files(at_hub: AtHub) -> None:
    said = refused(UnsupportedArchitecture, Wanted(REPOSITORY, architecture="LlamaForCausalLM"), at_hub())
    assert "Qwen3ForCausalLM" in said and "LlamaForCausalLM" in said


def test_an_architecture_that_vllm_does_not_know_is_refused_before_weights_come(at_hub: AtHub, hub: FakeHub) -> None:
    config = b'{"architectures": ["Qwen33ForCausalLM"]}'
    hub.repositories["org/new"] = FakeRepository({"config.json": config, "model.safetensors": b"x" * 99})
    said = refused(UnsupportedArchitecture, Wanted("org/new"), at_hub())
    assert "Qwen33ForCausalLM" in said and "nearest" in said
    assert not any("safetensors" in line for line in hub.asked)


def test_a_repository_without_weights(at_hub: AtHub, hub: FakeHub) -> None:
    hub.repositories["org/words"] = FakeRepository({"README.md": b"words", "config.json": b"{}"})
    assert "no weights" in refused(WeightsMissing, Wanted("org/words"), at_hub())


@pytest.mark.parametrize(("names", "chosen"), [
    (["a.safetensors", "a.bin", "config.json", "README.md"], ["a.safetensors", "config.json"]),
    (["pytorch_model.bin", "config.json"], ["pytorch_model.bin", "config.json"]),
    (["consolidated.safetensors", "model-1.safetensors", "params.json"], ["model-1.safetensors", "params.json"]),
    (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
    (["m.safetensors", "original/consolidated.00.pth", "original/params.json", "1_Pooling/config.json"],
     ["m.safetensors", "1_Pooling/config.json"]),
])
def test_only_what_vllm_reads_is_fetched(names: list[str], chosen: list[str]) -> None:
    assert list(of_hub.wanted(names)) == chosen
