"""One Ray Serve application per model: vLLM's whole HTTP server on a port of the replica's own.

Why not Ray's own ingress: its direct streaming serves one model per app and has no auth, its normal path is 3 times
slower. Why our own executor choice: ray.serve.llm forces `mp` on CPU, which halves the throughput of one device.
This module is the only one that leans on ray.serve.llm's inner parts; tests/engines/test_engine_contract.py pins them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from ray import serve
from ray.llm._internal.serve.core.configs.accelerators import AcceleratorBackend, GPUAccelerator
from ray.llm._internal.serve.core.server.llm_server import LLMServer
from ray.llm._internal.serve.engines.vllm.vllm_models import VLLMEngineConfig
from ray.serve.llm import LLMConfig, build_llm_deployment

from serving.carrier.server import CarrierServer
from serving.engines import adapters, caches, nodeprices, scaling, sockets, stored, telling, tracing
from serving.engines.books import Books, ReplicaFacts, Write
from serving.engines.names import CARRIER, ENDPOINT, START_S
from serving.engines.scaling import NOWHERE, Place
from serving.engines.scheduler import ADDRESS_KEY, QUALIFIED_NAME
from serving.engines.settling import Settling
from serving.engines.steps import StepReceiver
from serving.engines.telling import Teller
from serving.engines.whileused import IDLE
from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.catalogue import Fleet, ModelSpec
from serving.fleet.loading import NO_LOADING, LoadingPolicy
from serving.fleet.money import PriceLine
from serving.fleet.observing import LogSpec
from serving.fleet.prices import Comparison
from serving.fleet.resources import actor_cpus, bundle_cpus
from serving.settings import Settings
from serving.telemetry import logs

_ENGINE_ENV = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CONFIGURE_LOGGING": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_RESPONSES = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}  # bounded by `stored`
# vLLM fetches media from any host unless it is given some; this one cannot exist (RFC 2606)
_NO_HOSTS = ["media.invalid"]
_LISTS_CHANGE_S = 0.5  # within it every gateway has taken a stopping replica off its list
_STOP_S = 15.0  # what remains of a graceful stop after the last request
_BACKLOG = 4096


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica needs to know beside its model."""

    aliases: tuple[str, ...]
    money: Callable[[str], ReplicaFacts]  # of a replica by its id
    executor: str | None
    secret: str  # empty: in the environment of the replica's own process
    open_sink: Callable[[str], Write]
    drain_s: float  # longest time that a stopping replica works on for those it has answered half
    adapters: dict[str, str] = field(default_factory=dict)  # folder or hub id by the adapter's own name
    logs: LogSpec = LogSpec()
    more_adapters: bool = False  # whether there may be others, of which gateways tell
    node_prices: Callable[[Mapping[str, str]], PriceLine] | None = None  # by a node's labels, where those decide


def application(fleet: Fleet, name: str, source: str, secret: str, open_sink: Callable[[str], Write],
                env: dict[str, str], compared: tuple[Comparison, ...] = (),
                adapter_sources: dict[str, str] | None = None, resources: dict[str, float] | None = None,
                place: Place = NOWHERE) -> Any:
    """The Serve application of one model.

    `source`: hub id or path that vLLM loads. `open_sink`: called once in each replica with its id, gives the function
    that writes readings down; it must be picklable. `env`: further environment of the replica's processes. `compared`:
    the APIs that the model's traffic is held against. `adapter_sources`: hub id or path of each of the model's
    adapters, by the adapter's own name. `resources`: Ray resources that each bundle of a replica asks for beside
    processors and GPUs, by which a cluster keeps it on the pods of its accelerator profile.
    `place`: where decisions about the number of replicas are told.
    """
    spec = fleet.models[name]
    adapter_sources = adapter_sources or {}
    settings = ReplicaSettings(spec.aliases, functools.partial(facts, fleet, name, compared), executor(fleet, spec),
                               secret, open_sink, fleet.gateway.request_timeout_s, adapter_sources,
                               more_adapters=spec.lora is not None, logs=fleet.logs,
                               node_prices=functools.partial(fleet.price_line, name)
                               if fleet.accelerators[spec.accelerator].needs_labels else None)
    return build_llm_deployment(llm_config(fleet, spec, name, source, env, adapter_sources, resources, place),
                                deployment_cls=ModelServer, bind_kwargs={"settings": settings})


def facts(fleet: Fleet, name: str, compared: tuple[Comparison, ...], replica_id: str) -> ReplicaFacts:
    """What the books of a model's replica need to know. Called in the replica, whose node may decide its price."""
    spec, costs = fleet.models[name], fleet.costs
    loading = LoadingPolicy(costs.max_loading, costs.window_h * 3600) if costs.idle == "pro_rata" else NO_LOADING
    return ReplicaFacts(
        replica_id, name, fleet.variant(name), fleet.price_line(name, Settings.read(os.environ).labels()), loading,
        (spec.owner or "") if costs.idle == "owner" else "", compared, spec.engine.metering == "window",
        fleet.ledger.when_full == "refuse",
    )


def executor(fleet: Fleet, spec: ModelSpec) -> str | None:
    """vLLM's executor for a replica. None: Ray's own choice, which on GPUs has not been measured against others."""
    if fleet.accelerators[spec.accelerator].kind == "gpu":
        return "mp" if spec.data_ranks > 1 else None
    return "uni" if spec.devices == 1 else "mp"


def environment(fleet: Fleet, spec: ModelSpec, source: str, adapter_sources: dict[str, str]) -> dict[str, str]:
    """The environment of a replica's processes."""
    found = _ENGINE_ENV | _RESPONSES
    if all(map(os.path.isdir, (source, *adapter_sources.values()))):
        found |= _OFFLINE
    if adapter_sources or spec.lora is not None:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # lets vLLM ask for adapters by `adapters.FleetAdapters`
    if executor(fleet, spec) == "uni":
        found["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else vLLM's CPU platform insists on a worker process
    return found | spec.engine.env


def llm_config(fleet: Fleet, spec: ModelSpec, name: str, source: str, env: dict[str, str],
               adapter_sources: dict[str, str], resources: dict[str, float] | None = None,
               place: Place = NOWHERE) -> LLMConfig:
    """ray.serve.llm's configuration of a model. `resources`, `place`: see `application`."""
    profile = fleet.accelerators[spec.accelerator]
    hardware, actor = _hardware(profile, spec, resources or {})
    return LLMConfig(
        model_loading_config={"model_id": name, "model_source": source},
        deployment_config={
            "autoscaling_config": scaling.of_model(fleet, name, place),
            "ray_actor_options": {"num_cpus": actor_cpus(profile)} | actor,
            "graceful_shutdown_timeout_s": fleet.gateway.request_timeout_s + _STOP_S,
            "health_check_period_s": 2,
            "health_check_timeout_s": 30,
        },
        log_engine_metrics=False,  # vLLM's own prometheus_client registry, scraped at the replica's port
        engine_kwargs=tracing.arguments(fleet.traces) | engine_kwargs(spec, adapter_sources),
        runtime_env={"env_vars": tracing.environment(fleet.traces, fleet.name, name)
                     | environment(fleet, spec, source, adapter_sources) | env},
        **hardware,
    )


def _hardware(profile: AcceleratorProfile, spec: ModelSpec, marks: dict[str, float]
              ) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a replica's placement group asks for, and what its own process has of that. `marks`: of each bundle."""
    if profile.kind == "cpu":
        # the bundle's share is what the engine's processes take; the replica's own actor gets a little on top
        return {"accelerator_config": {"kind": "cpu"},
                "placement_group_config": {"bundles": [{"CPU": bundle_cpus(profile), **marks}]}}, {}
    if spec.data_ranks > 1:
        # by itself ray.serve.llm makes bundles for one rank, and all of them would want those: here the replica's own
        # process has the GPUs, of one host, and vLLM's processes below it divide them
        bundle = {"CPU": bundle_cpus(profile) * spec.devices, **marks}
        return {"accelerator_type": profile.type, "accelerator_config": {"kind": "gpu"},
                "placement_group_config": {"bundles": [bundle], "strategy": "STRICT_PACK"}}, {"num_gpus": spec.devices}
    return {"accelerator_type": profile.type,
            "placement_group_config": {"bundle_per_worker": {"GPU": 1, "CPU": bundle_cpus(profile), **marks}}}, {}


def engine_kwargs(spec: ModelSpec, adapter_sources: dict[str, str]) -> dict[str, Any]:
    """vLLM's engine and server arguments for a model with these adapters."""
    engine = spec.engine
    kwargs: dict[str, Any] = {
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "allowed_media_domains": _NO_HOSTS,
        "scheduling_policy": "priority",  # among equals it is first come, first served
    }
    if engine.pipeline_parallel_size > 1:
        kwargs["pipeline_parallel_size"] = engine.pipeline_parallel_size
    if engine.metering == "steps":
        kwargs["scheduler_cls"] = QUALIFIED_NAME
    if engine.kv_cache_mib is not None:
        kwargs["kv_cache_memory_bytes"] = engine.kv_cache_mib * 1024 * 1024
    if engine.tool_call_parser is not None:
        kwargs |= {"enable_auto_tool_choice": True, "tool_call_parser": engine.tool_call_parser}
    if engine.reasoning_parser is not None:
        kwargs["reasoning_parser"] = engine.reasoning_parser
    if spec.revision is not None:
        kwargs["revision"] = spec.revision
    return kwargs | adapters.engine_arguments(adapter_sources, spec.lora) | engine.args


class _GpusHere(GPUAccelerator):
    """GPUs that the replica's own process has: no other task could get one to look at them."""

    @property
    def requires_remote_initialization(self) -> bool:
        return False


class _OwnEngineConfig(VLLMEngineConfig):
    """ray.serve.llm's engine configuration with our executor, names and step channel."""

    flotilla: dict[str, Any] = {}
    gpus_here: bool = False

    @property
    def accelerator(self) -> AcceleratorBackend:
        return _GpusHere() if self.gpus_here else super().accelerator

    def get_initialization_kwargs(self) -> dict[str, Any]:
        return super().get_initialization_kwargs() | self.flotilla


class ModelServer(LLMServer):
    """A replica: vLLM's engine, its server on a port of the replica's own, and its books."""

    async def __init__(self, llm_config: LLMConfig, settings: ReplicaSettings) -> None:
        started_ns, started_at = _process_start()
        logs.configure(settings.logs, "replica")
        caches.mend(os.environ)
        replica_id = serve.get_replica_context().replica_id.unique_id
        self._settings = settings
        self._steps_address = f"flotilla-steps-{replica_id}"
        self._adapters: adapters.FleetAdapters | None = None
        self._model = (facts := settings.money(replica_id)).model
        self._books = Books(facts, started_ns, started_at, settings.open_sink(replica_id))
        self._receiver = StepReceiver(self._steps_address, self._books.take)
        await self._receiver.start()
        self._tasks = [asyncio.get_running_loop().create_task(self._books.keep())]
        if settings.node_prices is not None:
            self._tasks.append(asyncio.get_running_loop().create_task(nodeprices.follow(
                Settings.read(os.environ), settings.node_prices, facts.prices, self._books.reprice)))
        await super().__init__(llm_config)
        await self._serve_http()

    async def _start_engine(self) -> None:
        config = self._llm_config.get_engine_config()
        own = _OwnEngineConfig.model_validate(config.model_dump())
        own.flotilla = {
            "served_model_name": [self._model, *self._settings.aliases],
            "additional_config": {ADDRESS_KEY: self._steps_address},
        }
        if self._settings.executor:
            own.flotilla["distributed_executor_backend"] = self._settings.executor
        own.gpus_here = bool(self._llm_config.deployment_config["ray_actor_options"].get("num_gpus"))
        self._llm_config._engine_config = own
        if self._settings.adapters or self._settings.more_adapters:
            self._adapters = adapters.register(self._model, self._settings.adapters)
        await super()._start_engine()

    async def _serve_http(self) -> None:
        import uvicorn

        server = await self.engine.build_asgi_app()
        stored.bound(getattr(server.state, "openai_serving_responses", None))
        self._healthy = lambda: not server.state.engine_client.errored
        if self._adapters is not None:
            adapters.name_as_callers_do(server.state.openai_serving_models)
        own = Settings.read(os.environ)
        secret = self._settings.secret or own.gateway_secret()
        app = Settling(server, self._books, secret, self._healthy,
                       self._adapters.tell if self._adapters is not None else None)
        host, ports = own.replica_address()
        sock = sockets.listening(host, ports)
        self._endpoint = sockets.address(sock)
        config = uvicorn.Config(app, log_level="warning", loop="none", http="httptools", access_log=False,
                                lifespan="off", timeout_keep_alive=75, backlog=_BACKLOG)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # the replica's signals are Ray's
        self._tasks.append(asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock])))
        carrier_socket = sockets.listening(host, ports)
        self._carrier = CarrierServer(app)
        await self._carrier.start(carrier_socket)
        self._carrier_endpoint = sockets.address(carrier_socket)
        await _warm_up(self._endpoint, self._model, secret)
        self._books.ready(self._endpoint)
        self._teller = Teller(self._books, *telling.engine_limits(server.state.engine_client))
        await self._books.write()

    def record_replica_metadata(self) -> dict[str, str]:
        """Ray Serve's hook: what gateways need to reach this replica."""
        return {ENDPOINT: self._endpoint, CARRIER: self._carrier_endpoint, START_S: f"{self._books.told.start_s:.1f}"}

    async def wake(self) -> None:
        """Do nothing: a call that waits for a replica is what makes Ray start one (`ReplicaDirectory.wake`)."""

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve's hook: what `scaling.FollowLoad` hears, and `whileused.WhileUsed`."""
        return self._teller.numbers(time.monotonic()) | {IDLE: self._books.idle_s}

    async def __del__(self) -> None:
        """Ray Serve's hook at a graceful stop. Requests came past Ray, so that waiting for them is our own matter."""
        await asyncio.sleep(_LISTS_CHANGE_S)
        deadline = time.monotonic() + self._settings.drain_s
        # a dead engine will never say that its requests have ended
        while self._books.busy and self._healthy() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        self._carrier.close()
        await self._books.close()
        for task in self._tasks:
            task.cancel()
        self._receiver.close()
        await super().__del__()


def _process_start() -> tuple[int, float]:
    """When this process began: (monotonic nanoseconds, Unix seconds). Cold start counts from here."""
    started_at = psutil.Process().create_time()
    age_ns = max(0, int((time.time() - started_at) * 1e9))
    return time.monotonic_ns() - age_ns, started_at


async def _warm_up(endpoint: str, model: str, secret: str) -> None:
    """Run a request through the engine: the first one pays for lazy set-up that no caller should wait for."""
    import aiohttp

    prompt, text = {"model": model, "prompt": "warm", "max_tokens": 2}, {"model": model, "input": "warm"}
    pair = {"model": model, "text_1": "warm", "text_2": "up"}
    headers = {"x-flotilla-secret": secret, "x-request-id": "warm-up"}
    async with aiohttp.ClientSession() as session:
        await _reachable(session, endpoint, model)
        # of these a model has the endpoint of its own kind
        for path, body in (("/v1/completions", prompt), ("/v1/embeddings", text), ("/score", pair)):
            async with session.post(f"http://{endpoint}{path}", json=body, headers=headers) as answer:
                said = await answer.text()
                if answer.status >= 500:
                    raise RuntimeError(f"the first request to {model!r} failed: {said}")
                if answer.status < 400:
                    return


async def _reachable(session: Any, endpoint: str, model: str) -> None:
    import aiohttp

    for _ in range(100):
        try:
            async with session.get(f"http://{endpoint}/health"):
                return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the server of {model!r} did not answer on {endpoint}")
