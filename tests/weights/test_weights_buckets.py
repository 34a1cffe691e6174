"""Weights in a bucket: Arrow's clients and Ray's loader against an S3 and a Google Cloud Storage on loopback; what is
wrong is one sentence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_gcs import FakeGcs, fake_gcs
from fake_s3 import FakeS3, fake_s3

from serving import clusterweights
from serving.errors import (
    DiskFull,
    UnsupportedArchitecture,
    WeightsDamaged,
    WeightsError,
    WeightsGated,
    WeightsMissing,
    WeightsUnreachable,
)
from serving.fleet import catalogue
from serving.weights import Hub, Wanted, buckets, prepare

SOURCE, AT_GOOGLE = "s3://models/org/tiny", "gs://models/org/tiny"


@pytest.fixture
def s3(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """An S3 that has the small checkpoint, for whoever has the key."""
    with fake_s3({"models": {}}) as made:
        made.put("models", "org/tiny", folder)
        made.let_in(monkeypatch, tmp_path / "none")
        yield made


@pytest.fixture
def gcs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """A store that has the small checkpoint, for whoever has the credentials."""
    with fake_gcs({"models": {}}) as made:
        made.put("models", "org/tiny", folder)
        made.let_in(monkeypatch, tmp_path)
        yield made


def told(kind: type[WeightsError], source: str = SOURCE, hub: Hub | None = None, **wanted: object) -> str:
    """The one line of the error."""
    with pytest.raises(kind) as caught:
        prepare(Wanted(source, **wanted), hub or Hub())  # type: ignore[arg-type]
    assert type(caught.value) is kind
    said = str(caught.value)
    assert "\n" not in said and source in said
    return said


def test_a_folder_of_a_bucket_is_looked_at_and_left_to_rays_loader(s3: FakeS3) -> None:
    found = prepare(Wanted(SOURCE, architecture="Qwen3ForCausalLM"), Hub())
    assert found == f"pyarrow-{SOURCE}"
    assert "GET /models/org/tiny/config.json" in s3.asked
    assert not any(path.endswith(".safetensors") for path in s3.asked), "weights are not fetched to be looked at"


@pytest.mark.parametrize("source", [SOURCE, AT_GOOGLE])
def test_rays_loader_brings_every_file_from_where_it_is_sent(source: str, s3: FakeS3, gcs: FakeGcs, folder: Path,
                                                             tmp_path: Path) -> None:
    from ray.llm._internal.common.utils.cloud_utils import CloudFileSystem, is_remote_path

    address = prepare(Wanted(source), Hub())
    assert is_remote_path(address), "or Ray takes it for a hub id"
    CloudFileSystem.download_model(str(tmp_path / "there"), address, tokenizer_only=False)
    brought = {path.name: path.read_bytes() for path in (tmp_path / "there" / "snapshots").rglob("*") if path.is_file()}
    assert brought == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bucket_and_a_folder_that_are_not_there(s3: FakeS3, gcs: FakeGcs) -> None:
    for source in ("s3://modells/org/tiny", "s3://models/org/tinny", "gs://modells/org", "gs://models/org/tinny"):
        assert "no such folder or bucket" in told(WeightsMissing, source)


def test_a_folder_without_config_or_weights(s3: FakeS3) -> None:
    del s3.buckets["models"]["org/tiny/model.safetensors"]
    assert "no weights" in told(WeightsMissing)
    del s3.buckets["models"]["org/tiny/config.json"]
    assert "no config.json" in told(WeightsMissing)


@pytest.mark.parametrize("has_key", [False, True])
def test_without_the_right_credentials(s3: FakeS3, monkeypatch: pytest.MonkeyPatch, has_key: bool) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    if not has_key:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
    said = told(WeightsGated)
    assert ("those of AWS_ACCESS_KEY_ID" in said) == has_key and ("none are set: AWS_ACCESS_KEY_ID" in said) != has_key
    assert "secret" not in said


def test_google_without_credentials_or_with_those_of_someone_else(gcs: FakeGcs, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user.json").write_text(gcs.credentials("of someone else"))
    assert "those of GOOGLE_APPLICATION_CREDENTIALS" in told(WeightsGated, AT_GOOGLE)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    without = "Could not create a OAuth2 access token to authenticate the request"  # as its client says after 15 s
    monkeypatch.setattr(buckets, "_client", lambda scheme: (_ for _ in ()).throw(OSError(without)))
    assert "none are set: GOOGLE_APPLICATION_CREDENTIALS" in told(WeightsGated, AT_GOOGLE)


def test_an_s3_that_does_not_answer(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    began = time.monotonic()
    assert "could not be looked at" in told(WeightsUnreachable)
    assert time.monotonic() - began < 20


def test_a_config_that_vllm_cannot_run_and_one_that_is_none(s3: FakeS3) -> None:
    assert "the fleet file says LlamaForCausalLM" in told(UnsupportedArchitecture, architecture="LlamaForCausalLM")
    s3.buckets["models"]["org/tiny/config.json"] = b"{"
    assert "not JSON" in told(WeightsDamaged)


def test_what_does_not_fit_on_the_disk(s3: FakeS3, tmp_path: Path) -> None:
    assert "free" in told(DiskFull, hub=Hub(cache=tmp_path, free=lambda folder: 3))


def test_a_streaming_loader_reads_the_bucket_itself_and_has_to_be_installed(
        s3: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = {"load_format": "runai_streamer"}
    said = told(WeightsError, engine_args=args)
    assert "runai-model-streamer" in said and "load_format" in said
    monkeypatch.setattr(buckets, "_installed", lambda module: True)
    full = Hub(cache=tmp_path, free=lambda folder: 3)
    assert prepare(Wanted(SOURCE, engine_args=args), full) == SOURCE, "nothing is kept on the disk"


def test_on_a_cluster_replicas_get_the_same_address(tmp_path: Path) -> None:
    laptop = Path(__file__).resolve().parents[2] / "deployments" / "fleets" / "laptop.yaml"
    told = yaml.safe_load(laptop.read_text())
    told["prices"] = str(laptop.parent / told["prices"])
    told["models"] = {name: told["models"]["llama"] | {"source": source, "aliases": []} for name, source in (
        ("s3", SOURCE), ("gs", "gs://models/tiny"), ("hub", "org/tiny"))}
    told.pop("routes", None)
    told["tenants"] = {"demo": {}}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(told))
    found = clusterweights.prepare(catalogue.load(tmp_path / "fleet.yaml"), tmp_path).models
    assert found == {"s3": f"pyarrow-{SOURCE}", "gs": "gs://models/tiny", "hub": "org/tiny"}
