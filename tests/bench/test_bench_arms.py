"""The arms are started alike: one model, the same engine arguments, and a clear word when one cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from serving.bench import arms, relay, routing
from serving.bench.arms import ARMS, BASE, ENGINE, ENGINE_ENV, Place
from serving.errors import ConfigError, StartFailed
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("litellm", "vllm-router"):
        (tmp_path / "peers" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "peers" / "bin" / name).touch()
    return Place(tmp_path, tmp_path / "checkpoint", tmp_path / "peers", 21001, 21002, "127.0.0.1:21003")


def test_every_arm_can_be_described(place: Place) -> None:
    for arm in ARMS.values():
        launch = arm.launch(place)
        assert Path(launch.command[0]).exists(), arm.name
        assert launch.url == "http://127.0.0.1:21001" and launch.path == "/v1/chat/completions"
        assert json.loads(launch.probe)["model"] == arms.MODEL


def test_engines_get_the_same_arguments(place: Place) -> None:
    """Fairness, as a test: bare vLLM, Ray's arms and the fleet's replica are given equal engine arguments."""
    flags = arms.vllm_serve(place).command
    fleet = parse(arms.fleet_file(place.checkpoint), "bench", Fleet)
    engine = fleet.models[arms.MODEL].engine
    own = engine.args | {"max_model_len": engine.max_model_len, "max_num_seqs": engine.max_num_seqs,
                         "kv_cache_memory_bytes": (engine.kv_cache_mib or 0) * 2**20}
    assert own == ENGINE
    for name, value in ENGINE.items():
        at = flags.index(f"--{name.replace('_', '-')}")
        if value is not True:
            found = flags[at + 1]
            assert (json.loads(found) if isinstance(value, dict) else int(found)) == value
    for arm in (arms.ray_openai_app, arms.ray_direct):
        launch = arm(place)
        (app,) = yaml.safe_load(launch.files["app.yaml"])["applications"]
        (config,) = app["args"]["llm_configs"]
        assert config["engine_kwargs"] == ENGINE
        assert config["runtime_env"]["env_vars"] == ENGINE_ENV
    assert ENGINE_ENV.items() <= arms.vllm_serve(place).env.items()
    assert engine.env.items() <= ENGINE_ENV.items()


def test_direct_streaming_is_switched_on_only_where_it_is_meant(place: Place) -> None:
    name = "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"
    assert arms.ray_direct(place).env[name] == "1"
    assert name not in arms.ray_openai_app(place).env


def test_servers_do_not_inherit_settings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING", "1")
    monkeypatch.setenv("FLOTILLA_API_KEY", "flt_secret")
    assert arms.vllm_serve(place).env["VLLM_LOGGING_LEVEL"] == "WARNING"
    for arm in ARMS.values():
        assert "FLOTILLA_API_KEY" not in arm.launch(place).env
    assert "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING" not in arms.ray_openai_app(place).env


def test_a_missing_peer_says_how_to_get_it(place: Place) -> None:
    (place.peers / "bin" / "litellm").unlink()
    with pytest.raises(StartFailed, match="bootstrap.py bench"):
        arms.litellm(place)


def test_the_base_is_always_among_the_arms() -> None:
    assert [a.name for a in arms.chosen([])] == list(ARMS)
    assert [a.name for a in arms.chosen(["vllm-router", "flotilla"])] == [BASE, "flotilla", "vllm-router"]
    with pytest.raises(ConfigError, match="did you mean 'litellm'"):
        arms.chosen(["litelm"])
    with pytest.raises(ConfigError, match="there is no arm 'nginx'"):
        relay.chosen(["nginx"])
    with pytest.raises(ConfigError, match="prefix, least_loaded, round_robin"):
        routing.chosen(["random"])
