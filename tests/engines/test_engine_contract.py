"""What serving/engines leans on in Ray and vLLM. If an upgrade moves it, this fails and says what moved.

Almost the only fast tests that import Ray or vLLM. No engine is started: the scheduler runs for real, the model not.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engines import names
from serving.engines.steps import RECOMPUTE, Step, StepReceiver, phase_and_lost
from serving.fleet.catalogue import Fleet, ReplicaRange
from serving.fleet.config import parse
from serving.fleet.resources import node_devices, replica_cpus, share_of
from serving.fleet.specs import LoraSpec

FLEET = """\
name: sample
prices: prices.json
accelerators: {core: {kind: cpu, memory_gib: 2, cpus: 0.5, price_usd_per_hour: 0.04}}
models:
  %s:
    source: small:qwen3
    architecture: Qwen3ForCausalLM
    accelerator: core
    slo: {ttft_ms: 1, tpot_ms: 1}
    engine: {max_model_len: 512, tool_call_parser: hermes, kv_cache_mib: 64, args: {enforce_eager: true}}
tenants: {demo: {}}
"""
BLOCK = 32
CHUNK = 64  # most tokens of one step


def parameters(function: Callable) -> list[str]:
    return [p for p in inspect.signature(function).parameters if p != "self"]


def fleet(model: str = "qwen") -> Fleet:
    return parse(FLEET % model, "sample", Fleet)


# -- ray.serve.llm


@pytest.fixture(scope="module")
def deployment() -> Iterator[Any]:
    import ray

    from serving.engines import deployment as module

    with pytest.MonkeyPatch.context() as patch:
        # building an application asks for the surrounding runtime, and Ray would start a cluster to answer
        patch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
        yield module
    assert not ray.is_initialized()


def test_the_server_is_built_as_we_build_it(deployment) -> None:
    base = deployment.LLMServer
    assert parameters(base.__init__)[0] == "llm_config"
    assert inspect.iscoroutinefunction(base.__init__)
    for name in ("start", "_start_engine", "__del__"):
        assert inspect.iscoroutinefunction(getattr(base, name)), name
        assert parameters(getattr(base, name)) == [], name
    source = inspect.getsource(base.start)
    assert "self._start_engine()" in source, "our _start_engine would not be called"
    assert "self._llm_config = llm_config" in inspect.getsource(base._init_shared)
    assert "self.engine" in source


def test_the_engine_gives_vllms_whole_app() -> None:
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

    assert inspect.iscoroutinefunction(VLLMEngine.build_asgi_app)
    assert parameters(VLLMEngine.build_asgi_app) == []


def test_ray_asks_replicas_for_their_metadata(deployment) -> None:
    from ray.serve._private import constants, replica

    assert constants.RECORD_REPLICA_METADATA_METHOD == "record_replica_metadata"
    assert callable(deployment.ModelServer.record_replica_metadata)
    assert replica._validate_replica_metadata({names.ENDPOINT: "127.0.0.1:1"}) == {
        names.ENDPOINT: "127.0.0.1:1"
    }


def test_ray_pushes_running_replicas_as_the_directory_reads_them() -> None:
    from ray.serve._private import common, constants, deployment_state, long_poll

    assert parameters(long_poll.LongPollClient.__init__) == [
        "host_actor", "key_listeners", "call_in_event_loop", "client_id",
    ]
    assert "self.is_running = False" in inspect.getsource(long_poll.LongPollClient._process_update)
    assert callable(long_poll.LongPollClient.stop)
    assert {"is_available", "running_replicas"} <= {f.name for f in dataclasses.fields(common.DeploymentTargetInfo)}
    assert {"replica_id", "replica_metadata"} <= {f.name for f in dataclasses.fields(common.RunningReplicaInfo)}
    assert common.DeploymentID("m", "a") == common.DeploymentID(name="m", app_name="a")
    assert constants.SERVE_CONTROLLER_NAME and constants.SERVE_NAMESPACE
    told = inspect.getsource(deployment_state.DeploymentState.broadcast_running_replicas_if_changed)
    assert "DEPLOYMENT_TARGETS" in told and "DeploymentTargetInfo" in told
    # a replica that drains or stops is in neither state, so it leaves the list at once
    states = deployment_state.DeploymentState._BROADCAST_STATES
    assert {s.value for s in states} == {"RUNNING", "PENDING_MIGRATION"}


def test_a_handles_router_can_run_in_a_loop_of_its_own() -> None:
    from ray.serve import handle
    from ray.serve._private.handle_options import InitHandleOptions

    assert "_run_router_in_separate_loop" in {f.name for f in dataclasses.fields(InitHandleOptions)}
    assert isinstance(handle.DeploymentHandle.is_initialized, property)
    assert "kwargs" in parameters(handle.DeploymentHandle._init)


def test_a_deployments_status_is_asked_for_alone() -> None:
    from pydantic import ValidationError
    from ray.serve._private.application_state import StatusOverview
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import HTTPOptionsSchema

    assert parameters(ServeControllerClient.get_serve_status) == ["name"]
    assert parameters(StatusOverview.get_deployment_status) == ["name"]
    with pytest.raises(ValidationError):  # else `serve.status` would do
        HTTPOptionsSchema.model_validate(HTTPOptions(host=None).model_dump(exclude_unset=True))


def test_models_are_scaled_by_our_policy(deployment) -> None:
    from ray.serve._private import autoscaling_state, common, replica
    from ray.serve.config import AutoscalingContext

    assert "policy_kwargs" in inspect.getsource(autoscaling_state), "the policy would not be told its model"
    needed = {"current_num_replicas", "target_num_replicas", "running_replicas", "total_num_requests", "raw_metrics",
              "current_time"}
    assert needed <= set(parameters(AutoscalingContext.__init__))
    assert {"timestamp", "value"} <= {f.name for f in dataclasses.fields(common.TimeStampedValue)}
    assert '"record_autoscaling_stats"' in inspect.getsource(replica)
    assert inspect.signature(deployment.ModelServer.record_autoscaling_stats).return_annotation == "dict[str, float]"


@pytest.mark.parametrize("model", ["qwen", "deepseek-r1", "llama-3.3", "a_b"])
def test_deployments_are_named_as_gateways_look_for_them(deployment, model: str) -> None:
    app = deployment.application(fleet(model), model, "/nowhere", "secret", lambda: print, {})
    assert app._bound_deployment.name == names.deployment_name(model)


def test_the_fleets_words_reach_vllm(deployment) -> None:
    found, spec = fleet(), fleet().models["qwen"]
    config = deployment.llm_config(found, spec, "qwen", "/nowhere", {"X": "1"}, {}).get_engine_config()
    kwargs = config.get_initialization_kwargs() | config.frontend_kwargs
    assert kwargs["scheduler_cls"] == deployment.QUALIFIED_NAME
    assert kwargs["kv_cache_memory_bytes"] == 64 * 1024 * 1024
    assert (kwargs["max_model_len"], kwargs["enforce_eager"], kwargs["model"]) == (512, True, "/nowhere")
    assert (kwargs["tool_call_parser"], kwargs["enable_auto_tool_choice"]) == ("hermes", True)


def test_adapters_and_zero_replicas_reach_ray_and_vllm(deployment, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 12}')
    found = fleet()
    spec = found.models["qwen"].model_copy(update={"replicas": ReplicaRange(min=0, max=2)})
    found = found.model_copy(update={"models": found.models | {"qwen": spec}})
    here = {"pirate": str(tmp_path)}
    config = deployment.llm_config(found, spec, "qwen", str(tmp_path), {}, here)
    kwargs = config.get_engine_config().get_initialization_kwargs()
    assert (kwargs["enable_lora"], kwargs["max_lora_rank"], kwargs["max_loras"]) == (True, 16, 1)
    assert config.deployment_config["autoscaling_config"]["min_replicas"] == 0
    variables = deployment.environment(found, spec, str(tmp_path), here)
    assert (variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"], variables["HF_HUB_OFFLINE"]) == ("1", "1")
    far = {"pirate": "org/adapter"}
    assert "HF_HUB_OFFLINE" not in deployment.environment(found, spec, str(tmp_path), far), "it could not be fetched"
    assert deployment.engine_kwargs(spec, far)["max_lora_rank"] == 64
    assert "enable_lora" not in deployment.engine_kwargs(spec, {})
    room = spec.model_copy(update={"lora": LoraSpec(max_rank=32, max_loaded=6, max_per_step=2)})
    kwargs = deployment.engine_kwargs(room, {})
    assert [kwargs[k] for k in ("max_lora_rank", "max_loras", "max_cpu_loras")] == [32, 2, 6]
    assert deployment.environment(found, room, str(tmp_path), {})["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_ray_still_forces_an_executor_and_ours_still_wins(deployment) -> None:
    """Were `mp` no longer forced on CPU, _OwnEngineConfig could go."""
    found, spec = fleet(), fleet().models["qwen"]
    config = deployment.llm_config(found, spec, "qwen", "/nowhere", {}, {})
    forced = config.get_engine_config()
    assert forced.get_initialization_kwargs()["distributed_executor_backend"] == "mp"
    assert deployment.executor(found, spec) == "uni"
    own = deployment._OwnEngineConfig.model_validate(forced.model_dump())
    own.flotilla = {"distributed_executor_backend": "uni", "served_model_name": ["qwen", "alias"]}
    config._engine_config = own
    assert config.get_engine_config() is own, "Ray no longer keeps the engine configuration there"
    assert own.frontend_kwargs == forced.frontend_kwargs != {}
    kwargs = own.get_initialization_kwargs()
    assert (kwargs["distributed_executor_backend"], kwargs["served_model_name"]) == ("uni", ["qwen", "alias"])


@pytest.mark.parametrize(("engine", "bundles", "strategy", "of_actor", "executor"), [
    ({"tensor_parallel_size": 4}, 4, "PACK", 0, None),
    ({"tensor_parallel_size": 8, "pipeline_parallel_size": 2}, 16, "PACK", 0, None),
    ({"args": {"data_parallel_size": 8, "enable_expert_parallel": True}}, 1, "STRICT_PACK", 8, "mp"),
    ({"tensor_parallel_size": 2, "args": {"data_parallel_size": 4}}, 1, "STRICT_PACK", 8, "mp"),
], ids=["tensor", "pipeline", "experts", "tensor-and-data"])
def test_a_replicas_placement_group_has_all_its_gpus(deployment, engine: dict[str, Any], bundles: int, strategy: str,
                                                     of_actor: int, executor: str | None) -> None:
    """As many bundles, of GPUs of its profile alone, as the pods of its worker group can hold."""
    text = FLEET.replace("kind: cpu, memory_gib: 2, cpus: 0.5", "kind: gpu, type: H200, memory_gib: 141, cpus: 8")
    found = parse(text % "qwen", "sample", Fleet)
    spec = found.models["qwen"]
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": {}, **engine})})
    config = deployment.llm_config(found, spec, "qwen", "/nowhere", {}, {}, share_of("core"))
    options = deployment.ModelServer.get_deployment_options(config)
    asked = options["placement_group_bundles"]
    assert (len(asked), options["placement_group_strategy"]) == (bundles, strategy)
    assert sum(b["GPU"] for b in asked) == spec.devices
    assert all(b["flotilla-core"] and b["accelerator_type:H200"] for b in asked)
    assert sum(b["CPU"] for b in asked) == pytest.approx(replica_cpus(found.accelerators["core"], spec))
    assert max(b["GPU"] for b in asked) <= node_devices(spec)
    assert options["ray_actor_options"].get("num_gpus", 0) == of_actor
    assert deployment.executor(found, spec) == executor


def test_who_has_the_gpus_looks_at_them_itself(deployment) -> None:
    """A replica that holds its GPUs would wait for ever for a task that needs a part of one."""
    text = FLEET.replace("kind: cpu, memory_gib: 2, cpus: 0.5", "kind: gpu, type: H200, memory_gib: 141, cpus: 8")
    found = parse(text % "qwen", "sample", Fleet)
    forced = deployment.llm_config(found, found.models["qwen"], "qwen", "/nowhere", {}, {}).get_engine_config()
    assert forced.accelerator.requires_remote_initialization, "Ray no longer asks another task"
    own = deployment._OwnEngineConfig.model_validate(forced.model_dump())
    assert own.accelerator.requires_remote_initialization
    own.gpus_here = True
    assert not own.accelerator.requires_remote_initialization
    assert own.accelerator.default_bundles(num_devices=2) == [{"GPU": 1}, {"GPU": 1}]


def test_one_device_keeps_to_one_process_and_several_do_not(deployment) -> None:
    found = fleet()
    spec = found.models["qwen"]
    wide = spec.model_copy(update={"engine": spec.engine.model_copy(update={"tensor_parallel_size": 2})})
    assert deployment.executor(found, wide) == "mp"
    assert deployment.environment(found, spec, "/nowhere", {}).get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in deployment.environment(found, wide, "/nowhere", {})


def test_uvicorn_takes_its_signals_where_we_forbid_it() -> None:
    import uvicorn

    assert callable(uvicorn.Server.capture_signals)


def test_cpus_are_asked_for_amx_where_we_ask() -> None:
    import torch

    assert callable(torch.cpu._is_amx_tile_supported)
    assert callable(torch.cpu._init_amx)


# -- vLLM's server


def test_a_request_is_called_in_the_engine_as_the_gateway_called_it() -> None:
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
    from vllm.entrypoints.serve.engine.serving import BaseServing as Serving

    raw = SimpleNamespace(headers={"X-Request-Id": "flo-1"})
    assert Serving._base_request_id(raw, "the body's") == "flo-1"
    asked = ResponsesRequest(input="x", request_id="resp_1")
    assert (asked.request_id, "usage" in ResponsesResponse.model_fields) == ("resp_1", True)


def test_what_vllm_keeps_of_responses_can_be_bounded() -> None:
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    made = inspect.getsource(OpenAIServingResponses.__init__)
    stores = ("response_store", "msg_store", "event_store")
    assert all(f"self.{store}: dict[" in made for store in stores)
    source = inspect.getsource(OpenAIServingResponses)
    for store in stores:  # the ways in that are bounded
        assert not re.findall(rf"self\.{store}\.(update|setdefault)", source), store
        assert f"self.{store}[" in source, store


async def test_vllm_asks_for_adapters_by_the_name_in_the_request(tmp_path: Path) -> None:
    from vllm.config.lora import LoRAConfig
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.lora.resolver import LoRAResolverRegistry

    from serving.engines import adapters

    adapters.register("qwen", {"pirate": str(tmp_path)})
    resolver = LoRAResolverRegistry.get_resolver("flotilla")
    found = await resolver.resolve_lora("/base", "qwen:pirate")
    assert (found.lora_name, found.lora_path) == ("qwen:pirate", str(tmp_path))
    assert await resolver.resolve_lora("/base", "pirate") is None
    told = {"name": "qwen:new#lora_1", "source": "org/new", "path": str(tmp_path)}
    assert await resolver.resolve_lora("/base", told["name"]) is None
    resolver.tell(json.dumps(told).encode())
    found = await resolver.resolve_lora("/base", told["name"])
    assert (found.lora_name, found.lora_path) == (told["name"], str(tmp_path))
    models = SimpleNamespace(model_name=lambda lora_request=None: lora_request.lora_name if lora_request else "qwen")
    adapters.name_as_callers_do(models)
    assert (models.model_name(found), models.model_name()) == ("qwen:new", "qwen")
    assert parameters(OpenAIServingModels.model_name) == ["lora_request"]
    source = inspect.getsource(OpenAIServingModels.resolve_lora)
    assert "resolver.resolve_lora(base_model_name, lora_name)" in source
    assert "lora_request.lora_int_id = unique_id" in source
    assert {"max_lora_rank", "max_loras", "max_cpu_loras"} <= set(LoRAConfig.__dataclass_fields__)


async def test_the_engine_fetches_nothing_by_itself(deployment, tmp_path: Path) -> None:
    """Gateways do; what they overlook must be refused, whatever it says and however it is written."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.multimodal.media.connector import MediaConnector

    told = {name: value for name, value in deployment.engine_kwargs(fleet().models["qwen"], {}).items()
            if name.startswith("allowed_")}
    assert told.keys() <= {f.name for f in dataclasses.fields(EngineArgs)}
    assert EngineArgs(model="x", **told).allowed_local_media_path == ""

    class Tripwire:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("it fetches")

    connector = MediaConnector(connection=Tripwire(), **told)
    (tmp_path / "a.png").write_bytes(b"x")
    for url in ("http://127.0.0.1/a.png", "https://images.example.com/a.png", "HTTP://127.0.0.1/", "http:127.0.0.1",
                "http:///a", "http://media.invalid@127.0.0.1/", f"file://{tmp_path}/a.png", "ftp://x/a", "//x/a.png"):
        for fetch in (connector.fetch_image_async, connector.fetch_audio_async, connector.fetch_video_async):
            with pytest.raises((ValueError, RuntimeError)):
                await fetch(url)


# -- vLLM's scheduler


def test_the_schedulers_hooks_are_where_we_hook() -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    assert parameters(AsyncScheduler.update_from_output) == ["scheduler_output", "model_runner_output"]
    assert parameters(AsyncScheduler._free_request)[0] == "request"
    assert all(
        p.default is not p.empty
        for n, p in inspect.signature(AsyncScheduler.schedule).parameters.items()
        if n != "self"
    )


def test_what_we_read_of_steps_and_requests_is_there() -> None:
    from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
    from vllm.v1.request import Request, RequestStatus

    assert {"scheduled_new_reqs", "num_scheduled_tokens"} <= {
        f.name for f in dataclasses.fields(SchedulerOutput)
    }
    assert {"req_id", "num_computed_tokens"} <= {f.name for f in dataclasses.fields(NewRequestData)}
    assert isinstance(Request.num_output_tokens, property)
    ends = {s.name for s in RequestStatus if RequestStatus.is_finished(s)}
    known = {
        "FINISHED_STOPPED",
        "FINISHED_LENGTH_CAPPED",
        "FINISHED_ABORTED",
        "FINISHED_IGNORED",
        "FINISHED_ERROR",
        "FINISHED_REPETITION",
    }
    assert {"FINISHED_ABORTED", "FINISHED_ERROR", "FINISHED_IGNORED"} <= ends
    assert ends <= known, f"a new way to end: {ends - known}; is it finished, aborted or failed?"


@pytest.fixture(scope="module")
def vllm_config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }.items():
            patch.setenv(name, value)
        from serving import checkpoints
        from serving.engines.scheduler import ADDRESS_KEY, QUALIFIED_NAME, MeteredScheduler

        source = checkpoints.make("qwen3", tmp_path_factory.mktemp("checkpoints"))
        from vllm.engine.arg_utils import EngineArgs
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import init_none_hash

        config = EngineArgs(
            model=str(source),
            max_model_len=512,
            max_num_seqs=4,
            max_num_batched_tokens=CHUNK,
            block_size=BLOCK,
            kv_cache_memory_bytes=2**24,
            enforce_eager=True,
            distributed_executor_backend="uni",
            scheduler_cls=QUALIFIED_NAME,
            additional_config={ADDRESS_KEY: "nowhere"},
        ).create_engine_config()
        init_none_hash(sha256)
        assert config.scheduler_config.get_scheduler_cls() is MeteredScheduler
        assert config.additional_config == {ADDRESS_KEY: "nowhere"}
        config.cache_config.num_gpu_blocks = 64
        yield config


class Engine:
    """The metered scheduler, and a model that always says 5."""

    def __init__(self, config: Any, blocks: int = 64) -> None:
        import torch
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        from serving.engines.scheduler import ADDRESS_KEY, MeteredScheduler

        address = f"flotilla-test-{uuid.uuid4().hex}"
        config.additional_config = {ADDRESS_KEY: address}
        self.found: list[Step] = []
        self.receiver = StepReceiver(address, self.found.append)
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=32, dtype=torch.float32)
        kv = KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        )
        self.scheduler = MeteredScheduler(config, kv, StructuredOutputManager(config), block_size=BLOCK)

    def add(self, name: str, prompt: list[int], tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher
        from vllm.v1.request import Request

        self.scheduler.add_request(
            Request(
                request_id=name,
                prompt_token_ids=prompt,
                pooling_params=None,
                sampling_params=SamplingParams(max_tokens=tokens, ignore_eos=True),
                block_hasher=get_request_block_hasher(BLOCK, sha256),
            )
        )

    def update(self, output: Any) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        ids = list(output.num_scheduled_tokens)
        # a chunk of a prompt yields no token
        said = [[] if self._reading(name) else [5] for name in ids]
        self.scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={name: n for n, name in enumerate(ids)},
                sampled_token_ids=said,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )

    def _reading(self, name: str) -> bool:
        request = self.scheduler.requests.get(name)
        return request is not None and request.num_computed_tokens < request.num_prompt_tokens

    def run(self) -> None:
        for _ in range(100):
            if not self.scheduler.requests:
                return
            self.update(self.scheduler.schedule())
        raise AssertionError("the requests never ended")

    async def steps(self) -> list[Step]:
        """The steps sent so far, one by one."""
        await self.receiver.start()
        self.scheduler._steps.close()  # its end comes after all that was sent
        async with asyncio.timeout(5):
            while not self.receiver._engines:
                await asyncio.sleep(0)
            while self.receiver._engines:
                await asyncio.sleep(0)
        return [one for step in self.found for one in step.each()]


@pytest.fixture
def engine(vllm_config: Any) -> Iterator[Engine]:
    made = Engine(vllm_config)
    yield made
    made.receiver.close()
    made.scheduler._steps.close()


async def test_every_token_is_reported_with_its_context(engine: Engine) -> None:
    engine.add("a", list(range(150)), 3)
    engine.run()
    steps = await engine.steps()
    assert [s.works for s in steps] == [
        [("a", 64, 0, 1)],
        [("a", 64, 64, 1)],
        [("a", 22, 128, 1)],
        [("a", 1, 150, 0)],
        [("a", 1, 151, 0)],
    ]
    assert all(s.start_ns < s.end_ns for s in steps)
    (ended,) = itertools.chain.from_iterable(s.ended for s in steps)
    assert steps[-1].ended == [ended], "the end must come with the last step"
    assert (ended.engine_id, ended.outcome) == ("a", "finished")
    assert (ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens) == (150, 0, 3)


async def test_prompts_that_are_still_to_be_computed_are_counted(
        engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engines.scheduler._COUNT_NS", 0)
    for number, name in enumerate("abcdef"):  # four seats
        engine.add(name, list(range(number * 1_000, number * 1_000 + 50)), 40)
    engine.run()
    await engine.steps()
    unread = [step.unread for step in engine.found]
    assert unread[0] == 6 * 50 - CHUNK
    assert unread == sorted(unread, reverse=True) and 100 in unread and unread[-1] == 0


async def test_what_waits_is_not_counted_with_every_step(engine: Engine) -> None:
    for number, name in enumerate("abcdef"):
        engine.add(name, list(range(number * 1_000, number * 1_000 + 50)), 40)
    engine.run()
    await engine.steps()
    assert engine.found[0].unread == 6 * 50 - CHUNK
    assert sum(step.unread >= 0 for step in engine.found) < len(engine.found)


async def test_cached_tokens_are_context_and_not_work(engine: Engine) -> None:
    prompt = list(range(100))
    for name in ("first", "again"):
        engine.add(name, prompt, 1)
        engine.run()
    steps = await engine.steps()
    assert [w for s in steps for w in s.works if w[0] == "again"] == [("again", 4, 96, 1)]
    assert steps[-1].ended[0].cached_tokens == 96


async def test_requests_share_steps(engine: Engine) -> None:
    for name in "abc":
        engine.add(name, list(range(16)), 2)
    engine.run()
    steps = await engine.steps()
    assert sorted(w[0] for w in steps[0].works) == ["a", "b", "c"]
    assert sum(n for s in steps for _, n, *_ in s.works) == 3 * (16 + 1)
    assert sorted(e.engine_id for s in steps for e in s.ended) == ["a", "b", "c"]


async def test_an_abort_is_told_at_once_and_keeps_the_work_under_way(engine: Engine) -> None:
    from vllm.v1.request import RequestStatus

    engine.add("a", list(range(40)), 50)
    engine.update(engine.scheduler.schedule())
    under_way = engine.scheduler.schedule()
    engine.scheduler.finish_requests("a", RequestStatus.FINISHED_ABORTED)
    engine.update(under_way)
    first, abort, late = await engine.steps()
    assert (first.works, first.ended) == ([("a", 40, 0, 1)], [])
    assert (abort.works, [(e.engine_id, e.outcome, e.completion_tokens) for e in abort.ended]) == (
        [],
        [("a", "aborted", 1)],
    )
    assert (late.works, late.ended) == ([("a", 1, 40, 0)], [])


async def test_a_request_that_never_ran_ends_too(engine: Engine) -> None:
    from vllm.v1.request import RequestStatus

    engine.add("a", list(range(40)), 5)
    engine.scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED)
    (step,) = await engine.steps()
    assert (step.works, step.ended[0].outcome, step.ended[0].completion_tokens) == ([], "aborted", 0)
    assert engine.scheduler._cached == {} and engine.scheduler._in_flight == {}


async def test_nothing_is_kept_of_what_is_over(engine: Engine) -> None:
    for n in range(10):
        engine.add(f"r{n}", list(range(20 + n)), 2)
    engine.run()
    assert (engine.scheduler._cached, engine.scheduler._in_flight, engine.scheduler._ended) == ({}, {}, [])
    assert await asyncio.wait_for(engine.steps(), 5)


async def test_what_a_preemption_makes_the_engine_compute_again_is_told(vllm_config: Any) -> None:
    engine = Engine(vllm_config, blocks=7)  # one of them is vLLM's own: too few for two that grow
    try:
        for name in "ab":
            engine.add(name, list(range(60)) if name == "a" else list(range(100, 160)), 40)
        engine.run()
        found = await engine.steps()
    finally:
        engine.receiver.close()
        engine.scheduler._steps.close()
    marked = [(name, n, context, *phase_and_lost(marks)) for s in found for name, n, context, marks in s.works]
    redone = [work for work in marked if work[3] == RECOMPUTE]
    assert redone, "nothing was preempted: the test shows nothing"
    ended = {e.engine_id: e for s in found for e in s.ended}
    assert sum(e.preemptions for e in ended.values()) >= 1
    for name, n, context, _, lost in redone:
        assert 0 < lost <= n
        before = marked[: marked.index((name, n, context, RECOMPUTE, lost))]
        assert max(c + k for other, k, c, *_ in before if other == name) >= context + lost, "it was not there before"
    assert engine.scheduler._redo == {}


def test_drafts_that_the_model_did_not_confirm_are_lost() -> None:
    from serving.engines.scheduler import _rejected

    output = SimpleNamespace(sampled_token_ids=[[7], [1, 2, 3], [5, 6, 7, 8], []],
                             req_id_to_index={"none": 0, "some": 1, "all": 2, "gone": 3})
    drafts = {name: [1, 2, 3] for name in ("none", "some", "all", "gone")}
    lost = {name: phase_and_lost(_rejected((name, 4, 10, 0), drafts, output)[3])[1]
            for name in ("none", "some", "all", "gone", "undrafted")}
    assert lost == {"none": 3, "some": 1, "all": 0, "gone": 0, "undrafted": 0}


async def test_steps_that_do_the_same_travel_together(engine: Engine) -> None:
    for name in "ab":
        engine.add(name, list(range(16)), 40)
    engine.run()
    steps = await engine.steps()
    assert len(steps) == 40, "one of prompts and 39 of decodes"
    assert 3 <= len(engine.found) <= 6, "a message for each dozen"
    assert [s.works for s in steps[1:]] == [[("a", 1, 16 + n, 0), ("b", 1, 16 + n, 0)] for n in range(39)]
    assert all(a.end_ns <= b.start_ns for a, b in itertools.pairwise(steps))
    assert [len(s.ended) for s in steps] == [0] * 39 + [2]


async def test_an_abort_sends_what_waits_before_it(engine: Engine) -> None:
    from vllm.v1.request import RequestStatus

    for name in "ab":
        engine.add(name, list(range(16)), 400)
    for _ in range(8):
        engine.update(engine.scheduler.schedule())
    engine.scheduler.finish_requests("a", RequestStatus.FINISHED_ABORTED)
    engine.update(engine.scheduler.schedule())
    engine.scheduler.finish_requests("b", RequestStatus.FINISHED_ABORTED)
    steps = await engine.steps()
    assert [len(s.works) for s in steps] == [2] * 8 + [0, 1, 0]
    assert [e.completion_tokens for s in steps for e in s.ended] == [8, 9]
