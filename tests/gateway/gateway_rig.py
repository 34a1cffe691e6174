"""The gateway on a real port, with fake replicas below and ports in memory around it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn
from fake_replica import FakeReplica, Script

from serving.errors import InvalidKey, NoReplica
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.records import RequestRecord
from serving.fleet.tenants import Principal
from serving.gateway.app import Gateway, Ports

KEY = "flt_good"
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


class Keys:
    """One good key."""

    async def principal(self, key: str) -> Principal:
        if key != KEY:
            raise InvalidKey("this API key is not known here")
        return Principal("demo", "key_1")


@dataclass
class Directory:
    """Replicas by turns; none: NoReplica."""

    addresses: list[str] = field(default_factory=list)
    chosen: Counter = field(default_factory=Counter)

    async def choose(self, model: str) -> str:
        if not self.addresses:
            raise NoReplica(model, 7)
        address = self.addresses[self.chosen.total() % len(self.addresses)]
        self.chosen[address] += 1
        return address

    async def ready(self) -> dict[str, bool]:
        return {"qwen": bool(self.addresses), "llama": False}


@dataclass
class Counted:
    """The meter, as lists."""

    open: Counter = field(default_factory=Counter)
    begun: int = 0
    answers: list[tuple[RequestRecord, float | None]] = field(default_factory=list)

    def begin(self, model: str) -> None:
        self.begun += 1
        self.open[model] += 1

    def end(self, model: str) -> None:
        self.open[model] -= 1

    def answered(self, record: RequestRecord, cost_usd: float | None) -> None:
        self.answers.append((record, cost_usd))


class Rig:
    """A gateway under test. `close` checks what must hold whatever was asked."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.directory, self.meter = Directory(), Counted()
        self.records: asyncio.Queue[RequestRecord] = asyncio.Queue()
        self.replicas: list[FakeReplica] = []
        self._asked = 0
        fleet = parse(FLEET % timeout_s, "sample", Fleet)
        self._gateway = Gateway(fleet, Ports(Keys(), self.directory, self, self.meter), SECRET)

    def put(self, record: RequestRecord) -> None:
        """The gateway's port for records."""
        self.records.put_nowait(record)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in ("/healthz", "/readyz"):
            self._asked += 1
        await self._gateway(scope, receive, send)

    async def start(self) -> Rig:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self._app, log_level="warning", http="httptools", loop="none", interface="asgi3"
        )
        config.load()
        # serve() would take the signals, and a tenth of a second to start and to stop, from each test
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[sock])
        self.session = aiohttp.ClientSession(self.url, headers={"authorization": f"Bearer {KEY}"})
        return self

    async def replica(self, script: Script | None = None) -> FakeReplica:
        """One more replica of every model."""
        made = await FakeReplica(script).start()
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
        await self._server.lifespan.shutdown()
        for replica in self.replicas:
            await replica.stop()
        assert self.records.empty(), "more records than requests"
        assert not +self.meter.open and not -self.meter.open, "begin and end are not balanced"
        assert len(self.meter.answers) == self._asked, "every request is counted once"

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
