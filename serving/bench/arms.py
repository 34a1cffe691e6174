"""The servers that are compared: how each is started, in its makers' own words for speed, with one model for all.

Every arm gets the same checkpoint, the same engine arguments and the same environment of the engine (`ENGINE`,
`ENGINE_ENV`); what differs is what stands before the engine. May not happen in here: starting anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.bench.children import Launch, clean_environment
from serving.errors import ConfigError, StartFailed, nearest

MODEL = "qwen"
PATH = "/v1/chat/completions"
BASE = "vllm-serve"
ENGINE: dict[str, Any] = {
    "max_model_len": 2048,
    "max_num_seqs": 128,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 256 * 1024 * 1024,
    "block_size": 32,
    "enable_prompt_tokens_details": True,
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
ENGINE_ENV = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_LIMITS = {  # so wide that nothing meets them, but they are counted
    "requests_per_minute": 10**9, "completion_tokens_per_minute": 10**9, "budget_per_day": {"hard_usd": 1_000_000}}
_PROBE = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@dataclass(frozen=True)
class Place:
    """Where an arm is to run. `over`: address (host:port) of the bare engine, for those that stand before it."""

    folder: Path
    checkpoint: Path
    peers: Path  # the environment of the other servers
    port: int
    port_2: int
    over: str = ""


@dataclass(frozen=True)
class Arm:
    """One server. `in_path`: command lines of the processes between the client and the engine's own server."""

    name: str
    says: str
    launch: Callable[[Place], Launch]
    in_path: str | None = None
    over_base: bool = False  # it has no engine of its own: it stands before the arm BASE

    @property
    def roles(self) -> dict[str, str]:
        """Patterns of command lines by role, the first that fits counts."""
        path = {} if self.in_path is None else {"path": self.in_path}
        holder = {"rest": r"serving\.bench\.hold"}
        return holder | {"engine": r"VLLM::(EngineCore|Worker)"} | path | {
            "server": r"vllm serve|ServeReplica:.*:(LLM|Model)Server"}


def _bin(folder: Path, name: str) -> str:
    found = folder / name
    if not found.exists():
        raise StartFailed(f"{found} is not there; `python3 deployments/bootstrap.py bench` installs it")
    return str(found)


def _launch(place: Place, command: list[str], env: Mapping[str, str], **more: Any) -> Launch:
    url = f"http://127.0.0.1:{place.port}"
    return Launch(tuple(command), clean_environment() | env, place.folder, url, PATH, more.pop("headers", {}),
                  probe(), **more)


def _flags(arguments: Mapping[str, Any]) -> list[str]:
    flags = []
    for name, value in arguments.items():
        flags.append(f"--{name.replace('_', '-')}")
        if value is not True:
            flags.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return flags


def vllm_serve(place: Place) -> Launch:
    """vLLM's own server."""
    command = [_bin(Path(sys.executable).parent, "vllm"), "serve", str(place.checkpoint), "--host", "127.0.0.1",
               "--port", str(place.port), "--served-model-name", MODEL, "--distributed-executor-backend", "uni",
               "--disable-uvicorn-access-log", *_flags(ENGINE)]
    # as our replicas: proxies that keep connections longer than vLLM's 5 s run into closed ones
    return _launch(place, command, ENGINE_ENV | {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75"}, stop_s=15.0)


def probe() -> str:
    """A request that every server must answer before it counts as started."""
    return json.dumps(_PROBE)


def fleet_file(checkpoint: Path, model: Mapping[str, Any] | None = None,
               gateway: Mapping[str, Any] | None = None, sections: Mapping[str, Any] | None = None) -> str:
    """A fleet of this one model, as YAML. `model`, `gateway`: what to add to their sections; `sections`: further ones.
    """
    own = ("max_model_len", "max_num_seqs", "kv_cache_memory_bytes")
    args = {k: v for k, v in ENGINE.items() if k not in own}
    return yaml.safe_dump({
        "name": "bench", "prices": "prices.json",
        "accelerators": {"core": {"kind": "cpu", "memory_gib": 2, "cpus": 0.3, "price_usd_per_hour": 0.0416}},
        "models": {MODEL: {
            "source": str(checkpoint), "architecture": "Qwen3ForCausalLM", "accelerator": "core",
            "slo": {"ttft_ms": 1500, "tpot_ms": 80},
            "engine": {"max_model_len": ENGINE["max_model_len"], "max_num_seqs": ENGINE["max_num_seqs"],
                       "kv_cache_mib": ENGINE["kv_cache_memory_bytes"] // 2**20, "args": args,
                       "env": {k: ENGINE_ENV[k] for k in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")}},
            **(model or {}),
        }},
        "tenants": {"bench": {"limits": _LIMITS}},
        "gateway": dict(gateway or {}),
        **(sections or {}),
    })


def flotilla(place: Place, fleet: str | None = None) -> Launch:
    """`flotilla up`, with a key, metering and cost. The key is made before the start, so that the probe can use it."""
    from serving.ledger import keys
    from serving.ledger.store import Ledger
    from serving.settings import Settings

    settings = Settings(state_dir=place.folder / "state")
    key, _ = keys.create(Ledger.open(settings.database), "bench", "bench", settings.pepper(), 0.0)
    env = {"FLOTILLA_STATE_DIR": str(settings.state_dir), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "serving", "up", "fleet.yaml", "--port", str(place.port), "--metrics-port",
               str(place.port_2)]
    return _launch(place, command, env, stop_s=60.0, headers={"authorization": f"Bearer {key}"},
                   files={"fleet.yaml": fleet or fleet_file(place.checkpoint),
                          "prices.json": '{"origin": "none", "models": {}}'})


def _ray(place: Place, env: Mapping[str, str]) -> Launch:
    """`serve run` of ray.serve.llm's own application."""
    model = {
        "model_loading_config": {"model_id": MODEL, "model_source": str(place.checkpoint)},
        "accelerator_config": {"kind": "cpu"},
        "placement_group_config": {"bundles": [{"CPU": 0.5}]},
        "deployment_config": {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}},
        "engine_kwargs": ENGINE,
        "runtime_env": {"env_vars": ENGINE_ENV},
        "log_engine_metrics": False,
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": place.port},
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        "applications": [{"name": "llm", "route_prefix": "/", "import_path": "ray.serve.llm:build_openai_app",
                          "args": {"llm_configs": [model]}}],
    }
    own = {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(place.folder / "r"), "RAY_USAGE_STATS_ENABLED": "0",
           "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    command = [_bin(Path(sys.executable).parent, "serve"), "run", "app.yaml"]
    return _launch(place, command, ENGINE_ENV | own | env, files={"app.yaml": yaml.safe_dump(config)})


def ray_openai_app(place: Place) -> Launch:
    """Ray Serve LLM as it comes, in its throughput mode: Ray's proxy, an ingress replica, the engine's replica."""
    return _ray(place, {})


def ray_direct(place: Place) -> Launch:
    """Ray Serve LLM's high-throughput mode: HAProxy straight to the engine's replica, with direct streaming."""
    folder = place.folder / "h"
    return _ray(place, {
        "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder), "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(place.port_2),
    })


def litellm(place: Place, workers: int = 2) -> Launch:
    """LiteLLM's proxy with a master key and its production settings; no database, no callbacks."""
    key = "sk-bench"
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": {
            "model": f"hosted_vllm/{MODEL}", "api_base": f"http://{place.over}/v1", "api_key": "none"}}],
        "general_settings": {"master_key": key, "disable_error_logs": True},
        "litellm_settings": {"set_verbose": False, "request_timeout": 600, "telemetry": False},
    }
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
           "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true"}
    command = [_bin(place.peers / "bin", "litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port",
               str(place.port), "--num_workers", str(workers), "--telemetry", "False"]
    return _launch(place, command, env, files={"config.yaml": yaml.safe_dump(config)},
                   headers={"authorization": f"Bearer {key}"})


def vllm_router(place: Place) -> Launch:
    """vLLM's router, written in Rust."""
    command = [_bin(place.peers / "bin", "vllm-router"), "--host", "127.0.0.1", "--port", str(place.port),
               "--worker-urls", f"http://{place.over}", "--policy", "round_robin", "--prometheus-port",
               str(place.port_2), "--log-level", "error"]
    return _launch(place, command, {})


ARMS = {arm.name: arm for arm in (
    Arm(BASE, "vLLM's own server, nothing before it", vllm_serve),
    Arm("flotilla", "one gateway with key, metering and cost", flotilla, r"\bGateway\b"),
    Arm("ray-openai-app", "Ray Serve LLM, its ingress, throughput mode", ray_openai_app,
        r"OpenAiIngress|ProxyActor|haproxy"),
    Arm("ray-direct", "Ray Serve LLM, HAProxy with direct streaming", ray_direct, r"haproxy|LLMRouter|ProxyActor"),
    Arm("litellm", "LiteLLM's proxy before vLLM's server, as many workers as cores", litellm, "", True),
    Arm("vllm-router", "vLLM's Rust router before vLLM's server", vllm_router, "", True),
)}


def chosen(names: list[str]) -> list[Arm]:
    """These arms in their usual order, always with the one that all are compared with. Raises: ConfigError."""
    known(names, ARMS)
    return [arm for arm in ARMS.values() if not names or arm.name == BASE or arm.name in names]


def known(names: list[str], there: Iterable[str]) -> None:
    """Raises: ConfigError for the first name that is not there."""
    for name in names:
        if name not in there:
            near = nearest(name, there)
            raise ConfigError(f"there is no arm {name!r}; {f'did you mean {near!r}? ' if near else ''}"
                              f"arms: {', '.join(there)}")
