"""An OpenAI-compatible upstream with knobs: what the load test measures against it is known beforehand.

Run as a script; it prints its port and serves until it is killed. The model's name chooses the behaviour: any
plain name answers well, `x!truncate`, `x!error-event`, `x!500`, `x!bad-json`, `x!hang`, `x!empty`, `x!reset`,
`x!reasoning`, `x!whole-in-one` answer as they say. GET /stats tells what was served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

INPUT_USD, OUTPUT_USD = 1e-6, 4e-6


@dataclass
class Knobs:
    ttft_s: float = 0.05
    itl_s: float = 0.01
    error_every: int = 0
    cost: bool = True
    models: list[str] = field(default_factory=list)


@dataclass
class Served:
    requests: Counter = field(default_factory=Counter)
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bodies: list[dict] = field(default_factory=list)
    keys: Counter = field(default_factory=Counter)


def usage_of(body: dict, tokens: int, knobs: Knobs) -> dict:
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "prompt_tokens_details": {"cached_tokens": prompt // 2 if len(body["messages"]) > 2 else 0},
    }
    if knobs.cost:
        usage["cost"] = prompt * INPUT_USD + tokens * OUTPUT_USD
    return usage


class Fake:
    def __init__(self, knobs: Knobs) -> None:
        self.knobs, self.served = knobs, Served()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name, _, fault = body["model"].partition("!")
        served = self.served
        served.requests[body["model"]] += 1
        served.keys[request.headers.get("authorization", "")] += 1
        served.bodies = [*served.bodies[-199:], body]
        number = sum(served.requests.values())
        headers = {"x-request-id": "server-" + request.headers.get("x-request-id", "?")}
        if fault == "500" or (self.knobs.error_every and number % self.knobs.error_every == 0):
            served.errors += 1
            error = {"error": {"message": "the fake was told to fail", "type": "server_error"}}
            return web.json_response(error, status=500, headers=headers)
        if fault == "hang":
            await asyncio.sleep(3600)
        tokens = body["max_tokens"]
        usage = usage_of(body, tokens, self.knobs)
        if not body["stream"]:
            await asyncio.sleep(self.knobs.ttft_s + (tokens - 1) * self.knobs.itl_s)
            self._count(usage)
            message = {"role": "assistant", "content": "word " * tokens}
            choices = [{"index": 0, "message": message, "finish_reason": "length"}]
            return web.json_response({"id": "x", "choices": choices, "usage": usage}, headers=headers)
        return await self._stream(request, fault, tokens, usage, headers)

    def _count(self, usage: dict) -> None:
        self.served.prompt_tokens += usage["prompt_tokens"]
        self.served.completion_tokens += usage["completion_tokens"]

    async def _stream(
        self, request, fault: str, tokens: int, usage: dict, headers: dict
    ) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        start = loop.time()
        response = web.StreamResponse(headers=headers | {"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(value: object) -> None:
            await response.write(
                f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
            )

        def chunk(delta: dict, finish: str | None = None) -> dict:
            return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        # The role chunk comes at once and must not count as a first token.
        await send(chunk({"role": "assistant", "content": ""}))
        if fault == "empty":
            await send(chunk({}, "stop"))
            await send("[DONE]")
            return response
        steps = [tokens] if fault == "whole-in-one" else [1] * tokens
        part = "reasoning" if fault == "reasoning" else "content"
        for number, size in enumerate(steps):
            await asyncio.sleep(start + self.knobs.ttft_s + number * self.knobs.itl_s - loop.time())
            if number == 2 and fault in ("truncate", "error-event", "bad-json", "reset"):
                return await self._break(fault, request, response, send)
            await send(chunk({part: "wörd " * size}, "length" if number == len(steps) - 1 else None))
        self._count(usage)
        # A pause, so that an end-to-end time that ran until the usage chunk would be seen to be wrong.
        await asyncio.sleep(0.1)
        await send({"id": "x", "choices": [], "usage": usage})
        await send("[DONE]")
        return response

    async def _break(self, fault: str, request, response, send) -> web.StreamResponse:
        if fault == "error-event":
            await send({"error": {"message": "the replica died", "code": 503}})
            await send("[DONE]")
        elif fault == "bad-json":
            await send("{not json")
            await send("[DONE]")
        elif fault == "reset":
            request.transport.abort()
        return response

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") == "Bearer wrong":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        return web.json_response({"data": [{"id": name} for name in self.knobs.models]})

    async def stats(self, _: web.Request) -> web.Response:
        served = self.served
        return web.json_response(
            {
                "requests": dict(served.requests),
                "errors": served.errors,
                "prompt_tokens": served.prompt_tokens,
                "completion_tokens": served.completion_tokens,
                "bodies": served.bodies,
                "keys": dict(served.keys),
            }
        )


async def serve(knobs: Knobs) -> None:
    fake = Fake(knobs)
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", fake.chat),
            web.get("/v1/models", fake.models),
            web.get("/stats", fake.stats),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft-s", type=float, default=Knobs.ttft_s)
    parser.add_argument("--itl-s", type=float, default=Knobs.itl_s)
    parser.add_argument("--error-every", type=int, default=Knobs.error_every)
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--models", nargs="*", default=[])
    given = parser.parse_args()
    asyncio.run(serve(Knobs(given.ttft_s, given.itl_s, given.error_every, not given.no_cost, given.models)))
