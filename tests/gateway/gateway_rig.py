"""The gateway on a real port, with fake replicas below and ports in memory around it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn
from fake_replica import CarriedReplica, FakeReplica, Script

from serving.errors import InvalidKey
from serving.fleet.adapters import Adapter
from serving.fleet.balance import Replica
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.records import RequestRecord
from serving.fleet.tenants import Principal
from serving.gateway.app import Gateway, Ports
from serving.gateway.ports import MediaSource, Tracer
from serving.gateway.server import limits, listen
from serving.gateway.wire import with_limits

KEY, OF = "flt_good", "flt_of_"
SECRET = "between us"
FLEET = """\
name: sample
prices: prices.json
accelerators: {core: {kind: cpu, memory_gib: 2, price_usd_per_hour: 0.04}}
models:
  qwen:
    source: small:qwen3
    architecture: Qwen3ForCausalLM
    accelerator: core
    aliases: [qwen3, org.qwen]
    slo: {ttft_ms: 1500, tpot_ms: 80}
  llama: {source: org/llama, architecture: LlamaForCausalLM, accelerator: core, slo: {ttft_ms: 1500, tpot_ms: 80}}
tenants: {demo: {}}
gateway: {max_body_mib: 0.0625, request_timeout_s: %g}
"""
LIMIT = 65_536
_MODEL = {"source": "org/any", "architecture": "LlamaForCausalLM", "accelerator": "core",
          "slo": {"ttft_ms": 1500, "tpot_ms": 80}}


def fleet_file(models: dict[str, dict[str, Any]] | None = None, **sections: Any) -> str:
    """A fleet file in which each model says only what the test is about. JSON is YAML."""
    return json.dumps({
        "name": "sample", "prices": "prices.json",
        "accelerators": {"core": {"kind": "cpu", "memory_gib": 2, "price_usd_per_hour": 0.04}},
        "models": {name: _MODEL | said for name, said in (models or {"qwen": {}}).items()},
        "tenants": {"demo": {}},
    } | sections)


async def settled(count: Callable[[], int], pause_s: float = 0.1) -> int:
    """What a counter says once it stands still."""
    before = -1
    while before != (before := count()):
        await asyncio.sleep(pause_s)
    return before


class Keys:
    """One good key, and `flt_of_TENANT` for any other tenant."""

    async def principal(self, key: str) -> Principal:
        if key.startswith(OF):
            return Principal(key.removeprefix(OF), "key_2")
        if key != KEY:
            raise InvalidKey("this API key is not known here")
        return Principal("demo", "key_1")


def _replica(address: str, start_s: float) -> Replica:
    carried = address.removeprefix("carrier:")
    here, there = (address, "") if carried == address else ("127.0.0.1:1", carried)
    return Replica(f"r-{address}", here, there, start_s)


@dataclass
class Directory:
    """Replicas as a test sets them, the same for every model unless `only` says which."""

    addresses: list[str] = field(default_factory=list)
    only: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)  # of models without a replica
    woken: list[str] = field(default_factory=list)
    patience_s: float = 0.05
    start_s: float = 0.0
    _made: dict[str, tuple[Replica, ...]] = field(default_factory=dict)

    async def start(self) -> None:
        pass

    def replicas(self, model: str) -> tuple[Replica, ...]:
        now = tuple(_replica(a, self.start_s) for a in self.only.get(model, self.addresses))
        if self._made.get(model) != now:
            self._made[model] = now
        return self._made[model]

    def state(self, model: str) -> str:
        return "ready" if self.replicas(model) else self.states.get(model, "unavailable")

    async def wake(self, model: str) -> None:
        self.woken.append(model)

    async def wait(self, model: str, timeout_s: float) -> bool:
        limit = time.monotonic() + min(timeout_s, self.patience_s)
        while not self.replicas(model) and time.monotonic() < limit:
            await asyncio.sleep(0.002)
        return bool(self.replicas(model))


class Added:
    """Adapters that were added, as a test sets them."""

    def __init__(self) -> None:
        self.found: tuple[Adapter, ...] = ()

    async def start(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Counted:
    """The meter, as lists."""

    open: Counter = field(default_factory=Counter)
    begun: int = 0
    waiting: Counter = field(default_factory=Counter)
    moves: list[tuple[str, str]] = field(default_factory=list)
    answers: list[tuple[RequestRecord, float | None]] = field(default_factory=list)

    def begin(self, model: str) -> None:
        self.begun += 1
        self.open[model] += 1

    def end(self, model: str) -> None:
        self.open[model] -= 1

    def queued(self, model: str, count: int) -> None:
        self.waiting[model] = count

    def moved(self, model: str, to: str) -> None:
        self.moves.append((model, to))

    def answered(self, record: RequestRecord, cost_usd: float | None, trace_id: str = "") -> None:
        self.answers.append((record, cost_usd))


class Rig:
    """A gateway under test. `close` checks what must hold whatever was asked."""

    def __init__(self, timeout_s: float = 30.0, fleet: str = "", carried: bool = False,
                 media: MediaSource | None = None, tracer: Tracer | None = None) -> None:
        self._kind = CarriedReplica if carried else FakeReplica
        self.directory, self.meter = Directory(), Counted()
        self.records: asyncio.Queue[RequestRecord] = asyncio.Queue()
        self.replicas: list[FakeReplica | CarriedReplica] = []
        self._asked = 0
        self.accepting = True
        self.fleet = parse(fleet or FLEET % timeout_s, "sample", Fleet)
        self.added = Added()
        self.gateway = Gateway(self.fleet, Ports(Keys(), self.directory, self, self.meter, self.added, media,
                                                 tracer), SECRET)

    def put(self, record: RequestRecord) -> None:
        """The gateway's port for records."""
        self.records.put_nowait(record)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in ("/healthz", "/health", "/readyz", "/openapi.json"):
            self._asked += 1
        await self.gateway(scope, receive, send)

    async def start(self) -> Rig:
        sock = listen("127.0.0.1", 0)
        self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self._app, log_level="error", http=with_limits(limits(self.fleet.gateway)), loop="none",
            interface="asgi3", ws="none",
        )
        config.load()
        # serve() would take the signals, and a tenth of a second to start and to stop, from each test
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[sock])
        self.session = aiohttp.ClientSession(self.url, headers={"authorization": f"Bearer {KEY}"})
        return self

    async def replica(self, script: Script | None = None) -> FakeReplica | CarriedReplica:
        """One more replica of every model."""
        made = await self._kind(script).start()
        self.replicas.append(made)
        self.directory.addresses.append(made.address)
        return made

    async def close(self) -> None:
        await self.session.close()
        state = self._server.server_state
        for server in self._server.servers:
            server.close()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)
        assert not state.tasks, "a request never ended"
        for connection in list(state.connections):
            connection.transport.close()
        self._check_seats()
        await self._server.lifespan.shutdown()
        for replica in self.replicas:
            await replica.stop()
        assert self.records.empty(), "more records than requests"
        assert not +self.meter.open and not -self.meter.open, "begin and end are not balanced"
        assert len(self.meter.answers) == self._asked, "every request is counted once"

    def _check_seats(self) -> None:
        """Nothing is held for requests that are over."""
        forward = self.gateway._forward
        for name, lane in forward._lanes.items():
            assert lane._balancer.in_flight() == 0, f"seats of {name} are still taken"
            assert len(lane._queue) == 0, f"someone still waits for {name}"
        for address, link in forward._upstream._links._links.items():
            assert not link._sinks, f"streams to {address} are still open"

    def post(self, body: object, path: str = "/v1/chat/completions", **more: Any) -> Any:
        """A request; a context manager that gives the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.session.post(path, data=data, **more)

    async def record(self) -> RequestRecord:
        """The record of the request that just ended; there must be one."""
        return await asyncio.wait_for(self.records.get(), 3)


CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "hi"}]}
STREAMED = CHAT | {"stream": True}


def raw_request(body: bytes, key: str = KEY, path: str = "/v1/chat/completions", head: str = "") -> bytes:
    """A request as bytes, for callers that do not speak HTTP to its end."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n"
        f"{head}\r\n"
    ).encode() + body
