"""Models whose weights lie in a bucket: one in an S3, one in a Google Cloud Storage, both on loopback, answer and are
charged like any other.

A fleet of its own, so it runs only when FLOTILLA_BUCKETS is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import yaml
from conftest import up
from fake_gcs import FakeGcs, fake_gcs
from fake_s3 import FakeS3, fake_s3
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, fleet_file, nano

from serving import checkpoints

pytestmark = [pytest.mark.integration,
              pytest.mark.skipif("FLOTILLA_BUCKETS" not in os.environ, reason="FLOTILLA_BUCKETS is not set")]
TENANT = "far"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeS3, FakeGcs]]:
    """Where the weights are, and the environment that lets the clouds' clients in."""
    folder = tmp_path_factory.mktemp("stores")
    with fake_s3({"models": {}}) as s3, fake_gcs({"models": {}}) as gcs, pytest.MonkeyPatch.context() as patch:
        s3.put("models", "org/llama", checkpoints.make("llama", folder / "made"))
        gcs.put("models", "org/qwen", checkpoints.make("qwen3", folder / "made"))
        s3.let_in(patch, folder / "none")
        gcs.let_in(patch, folder)
        yield s3, gcs


@pytest.fixture(scope="module")
def far(stores: tuple[FakeS3, FakeGcs], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    """The fleet, up."""
    folder = tmp_path_factory.mktemp("far")
    file = fleet_file(folder, ("llama", "qwen"), (TENANT,))
    fleet = yaml.safe_load(file.read_text())
    fleet["models"]["llama"]["source"] = "s3://models/org/llama"
    fleet["models"]["qwen"]["source"] = "gs://models/org/qwen"
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    live = LiveFleet(folder / "state", file)
    with up(live):
        yield live


def test_models_from_buckets_answer_and_are_charged(far: LiveFleet, stores: tuple[FakeS3, FakeGcs]) -> None:
    caller = Caller(far.port, far.new_key(TENANT))
    answers = caller.many(CHAT, [chat(model, "Crate 7", 8) for model in ("llama", "qwen")])
    assert [answer.status for answer in answers] == [200, 200]
    for store in stores:
        assert any("model.safetensors" in asked for asked in store.asked), store.asked
    far.settled()
    charged = far.rows("SELECT SUM(c.direct + c.waste + c.idle + c.cold_start) FROM charges c")
    assert charged == [(sum(nano(answer.json["usage"]["cost"]) for answer in answers),)]
    assert far.run("cost", "reconcile").returncode == 0
