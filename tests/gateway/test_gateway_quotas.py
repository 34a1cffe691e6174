"""Limits at the door: what callers are told, what engines are told, and that every request settles once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from fake_replica import ASIDE, DONE, SEEN, STREAM, answers, event, hangs, hangs_up, streams
from gateway_rig import CHAT, KEY, STREAMED, Keys, Rig, fleet_file

from serving.errors import BudgetExhausted, QuotasUnavailable, RateLimited, RequestTooLarge
from serving.fleet.demand import Ask
from serving.fleet.records import Tokens
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Pass, Used
from serving.gateway.app import Gateway, Ports


@dataclass
class Counted:
    """Quotas that let through what a test says, and remember what they were told."""

    verdict: Pass | Exception | None = field(default_factory=Pass)
    asked: list[Ask] = field(default_factory=list)
    settled: list[Used] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    limiting: bool = True

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def concerns(self, who: Principal, model: str) -> bool:
        return self.limiting

    async def admit(self, request_id: str, who: Principal, model: str, ask: Ask) -> Pass | None:
        self.asked.append(ask)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        if self.verdict is not None:
            self.open.add(request_id)
        return self.verdict

    def settle(self, request_id: str, used: Used) -> None:
        self.open.remove(request_id)  # once, and only what was admitted
        self.settled.append(used)


class Known(Keys):
    """Keys with attributes: `flt_NAME`."""

    principals = {"flt_batch": Principal("demo", "key_b", priority="batch"),
                  "flt_fast": Principal("demo", "key_f", priority="interactive"),
                  "flt_llama": Principal("demo", "key_l", models=frozenset({"llama"})),
                  "flt_reader": Principal("demo", "key_r", scopes=frozenset({"usage"})),
                  "flt_admin": Principal("demo", "key_a", scopes=frozenset({"admin"}))}

    async def principal(self, key: str) -> Principal:
        return self.principals.get(key) or await super().principal(key)


class OneTenantsUsage:
    async def usage(self, tenant: str, query: str) -> dict[str, Any]:
        return {"object": "usage", "tenant": tenant, "query": query, "data": []}


class QuotaRig(Rig):
    """A gateway with quotas."""

    def __init__(self, quotas: Counted, carried: bool, fleet: str = "") -> None:
        super().__init__(fleet=fleet, carried=carried)
        self.quotas = quotas
        self.gateway = Gateway(self.fleet, Ports(Known(), self.directory, self, self.meter, quotas=quotas,
                                                 usage=OneTenantsUsage()),
                               "between us")

    async def close(self) -> None:
        await super().close()
        assert not self.quotas.open, "reservations that never settle"


@pytest_asyncio.fixture(params=["http", "carrier"])
async def limited(request: pytest.FixtureRequest) -> Any:
    rig = await QuotaRig(Counted(), request.param == "carrier").start()
    yield rig
    await rig.close()


def sent(rig: Rig) -> dict[str, Any]:
    """The last body as an engine reads it."""
    return json.loads(rig.replicas[0].last.body)


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_a_whole_answer_settles_to_its_usage(limited: QuotaRig, body: dict) -> None:
    await limited.replica(streams(STREAM) if "stream" in body else answers())
    async with limited.post(body) as answer:
        await answer.read()
    await limited.record()
    assert limited.quotas.settled == [Used(Tokens(9, 4, 3), 123_000)]


async def test_where_nothing_limits_no_one_is_asked(limited: QuotaRig) -> None:
    limited.quotas.limiting = False
    await limited.replica(answers())
    async with limited.post(CHAT) as answer:
        await answer.read()
    await limited.record()
    assert answer.status == 200 and limited.quotas.asked == limited.quotas.settled == []


async def test_a_stream_that_breaks_is_for_the_ledger_to_know(limited: QuotaRig) -> None:
    await limited.replica(streams(STREAM[:2], then="hang_up"))
    async with limited.post(STREAMED) as answer:
        await answer.read()
    await limited.record()
    assert limited.quotas.settled == [Used.unknown()]


async def test_so_is_one_whose_caller_left(limited: QuotaRig) -> None:
    replica = await limited.replica(hangs)
    with pytest.raises(asyncio.TimeoutError):
        async with limited.post(CHAT, timeout=aiohttp.ClientTimeout(total=0.3)) as answer:
            await answer.read()
    await asyncio.wait_for(replica.last.gone.wait(), 3)
    await limited.record()
    assert limited.quotas.settled == [Used.unknown()]


async def test_what_no_replica_saw_was_not_used(limited: QuotaRig) -> None:
    async with limited.post(CHAT) as answer:
        assert answer.status == 503
    await limited.record()
    assert limited.quotas.settled == [Used.nothing()]


async def test_what_the_engine_refuses_was_not_used(limited: QuotaRig) -> None:
    await limited.replica(answers(b'{"error": {"message": "no"}}', 400))
    async with limited.post(CHAT) as answer:
        assert answer.status == 400
    await limited.record()
    assert limited.quotas.settled == [Used.nothing()]


async def test_a_replica_that_died_of_it_may_have_worked(limited: QuotaRig) -> None:
    await limited.replica(hangs_up)
    async with limited.post(CHAT) as answer:
        assert answer.status >= 500
    await limited.record()
    assert limited.quotas.settled == [Used.unknown()]


async def test_answers_tell_the_limits(limited: QuotaRig) -> None:
    limited.quotas.verdict = Pass(None, None, ((b"x-ratelimit-limit-requests", b"60"), (b"x-flotilla-budget", b"80%")))
    await limited.replica(answers())
    async with limited.post(CHAT) as answer:
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert answer.headers["x-flotilla-budget"] == "80%"
    await limited.record()


REFUSALS = [
    (RateLimited("the limit of 60 requests a minute", "", 12, "requests", 60, 60), 429,
     {"retry-after": "12", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s"},
     "rate_limit_exceeded"),
    (RequestTooLarge("the limit", "", "ask for fewer"), 429, {"x-should-retry": "false"}, "request_too_large"),
    (BudgetExhausted("the budget is spent"), 402, {}, "budget_exhausted"),
    (QuotasUnavailable(3), 503, {"retry-after": "3"}, "quotas_unavailable"),
]


@pytest.mark.parametrize(("error", "status", "headers", "code"), REFUSALS)
async def test_refusals(limited: QuotaRig, error: Exception, status: int, headers: dict, code: str) -> None:
    limited.quotas.verdict = error
    replica = await limited.replica()
    async with limited.post(CHAT) as answer:
        assert answer.status == status
        assert {k: answer.headers[k] for k in headers} == headers
        found = (await answer.json())["error"]
        assert (found["code"], found["message"]) == (code, str(error))
    record = await limited.record()
    assert (record.code, record.tokens) == (status, None)
    assert replica.asked == [] and limited.quotas.settled == []


CAPPED = [
    ("/v1/chat/completions", CHAT, "max_completion_tokens"),
    ("/v1/chat/completions", CHAT | {"max_tokens": 500}, "max_completion_tokens"),
    ("/v1/completions", {"model": "qwen", "prompt": "a", "max_tokens": 500}, "max_tokens"),
    ("/v1/responses", {"model": "qwen", "input": "a"}, "max_output_tokens"),
    ("/v1/messages", CHAT | {"max_tokens": 500}, "max_tokens"),
]


@pytest.mark.parametrize(("path", "body", "member"), CAPPED)
async def test_engines_are_told_how_many_tokens_there_may_be(limited: QuotaRig, path: str, body: dict,
                                                             member: str) -> None:
    limited.quotas.verdict = Pass(30)
    await limited.replica()
    async with limited.post(body, path) as answer:
        await answer.read()
    await limited.record()
    assert sent(limited)[member] == 30


async def test_who_asks_for_less_is_left_alone(limited: QuotaRig) -> None:
    limited.quotas.verdict = Pass(30)
    await limited.replica()
    async with limited.post(CHAT | {"max_tokens": 20}) as answer:
        await answer.read()
    await limited.record()
    assert sent(limited) == CHAT | {"max_tokens": 20}


ASKED = [
    ("/v1/chat/completions", CHAT | {"max_tokens": 5, "n": 3}, (5, 3, 1, True)),
    ("/v1/chat/completions", CHAT | {"max_tokens": 5, "max_completion_tokens": 7}, (7, 1, 1, True)),
    ("/v1/chat/completions", CHAT, (None, 1, 1, True)),
    ("/v1/chat/completions", CHAT | {"max_tokens": "many"}, (None, 1, 1, True)),
    ("/v1/completions", {"model": "qwen", "prompt": "a"}, (16, 1, 1, True)),
    ("/v1/completions", {"model": "qwen", "prompt": ["a", "b"], "n": 2}, (16, 4, 2, True)),
    ("/v1/completions", {"model": "qwen", "prompt": [1, 2, 3], "max_tokens": 9}, (9, 1, 1, True)),
    ("/v1/completions", {"model": "qwen", "prompt": [[1], [2]], "max_tokens": 9}, (9, 2, 2, True)),
    ("/v1/responses", {"model": "qwen", "input": "a", "max_output_tokens": 4}, (4, 1, 1, True)),
    ("/v1/embeddings", {"model": "qwen", "input": ["a", "b", "c"]}, (None, 1, 3, False)),
]


@pytest.mark.parametrize(("path", "body", "asked"), ASKED)
async def test_what_a_request_may_use(limited: QuotaRig, path: str, body: dict, asked: tuple) -> None:
    await limited.replica()
    async with limited.post(body, path) as answer:
        await answer.read()
    await limited.record()
    (found,) = limited.quotas.asked
    assert (found.completion, found.answers, found.prompts, found.generates) == asked
    assert found.body_bytes == len(json.dumps(body))


async def test_to_count_tokens_uses_none(limited: QuotaRig) -> None:
    await limited.replica(answers(b'{"count": 3}'))
    async with limited.post({"model": "qwen", "prompt": "a" * 100}, "/tokenize") as answer:
        await answer.read()
    await limited.record()
    assert limited.quotas.asked == [Ask(0, generates=False, works=False)]


async def test_replicas_are_told_what_a_request_may_cost(limited: QuotaRig) -> None:
    limited.quotas.verdict = Pass(None, 4_200)
    await limited.replica()
    async with limited.post(CHAT, headers={"x-flotilla-budget-nanousd": "999999"}) as answer:
        await answer.read()
    await limited.record()
    assert limited.replicas[0].last.headers["x-flotilla-budget-nanousd"] == "4200"


async def test_no_caller_can_say_what_its_request_may_cost(limited: QuotaRig) -> None:
    await limited.replica()
    async with limited.post(CHAT, headers={"x-flotilla-budget-nanousd": "999999"}) as answer:
        await answer.read()
    await limited.record()
    assert "x-flotilla-budget-nanousd" not in limited.replicas[0].last.headers


async def test_a_stream_that_reaches_its_budget_ends_with_an_error(limited: QuotaRig) -> None:
    said = event({"error": {"message": "the budget is used up", "code": "budget_exhausted"}})
    await limited.replica(streams([SEEN[0], said, ASIDE, DONE]))
    async with limited.post(STREAMED) as answer:
        body = await answer.read()
    await limited.record()
    assert body == SEEN[0] + said
    assert limited.quotas.settled == [Used.unknown()]


async def test_an_answer_that_reached_its_budget_is_paid_all_the_same(limited: QuotaRig) -> None:
    await limited.replica(answers(b'{"error": {"message": "the budget is used up"}}', 402))
    async with limited.post(CHAT) as answer:
        assert answer.status == 402
    await limited.record()
    assert limited.quotas.settled == [Used.unknown()]


PRIORITIES = [("flt_batch", {}, 2), ("flt_fast", {}, -2), (KEY, {"priority": -100}, 0),
              ("flt_batch", {"priority": -100}, 2)]


@pytest.mark.parametrize(("key", "more", "priority"), PRIORITIES)
async def test_the_engines_priority_is_the_keys(limited: QuotaRig, key: str, more: dict, priority: int) -> None:
    await limited.replica()
    async with limited.post(CHAT | more, headers={"authorization": f"Bearer {key}"}) as answer:
        await answer.read()
    await limited.record()
    assert sent(limited)["priority"] == priority


async def test_no_spelling_of_the_member_gets_past(limited: QuotaRig) -> None:
    await limited.replica()
    body = b'{"model": "qwen", "messages": [], "\\u0070riority": -5}'
    async with limited.post(body) as answer:
        await answer.read()
    await limited.record()
    assert sent(limited)["priority"] == 0


async def test_engines_without_priorities_are_told_none() -> None:
    model = {"engine": {"args": {"scheduling_policy": "fcfs"}}}
    rig = await QuotaRig(Counted(), True, fleet_file({"qwen": model})).start()
    await rig.replica()
    async with rig.post(CHAT, headers={"authorization": "Bearer flt_batch"}) as answer:
        await answer.read()
    await rig.record()
    assert "priority" not in sent(rig)
    await rig.close()


async def test_a_keys_models_are_all_it_may_use(limited: QuotaRig) -> None:
    await limited.replica()
    mine = {"authorization": "Bearer flt_llama"}
    async with limited.post(CHAT, headers=mine) as answer:
        assert answer.status == 403
        assert "Allowed: llama" in (await answer.json())["error"]["message"]
    await limited.record()
    async with limited.post(CHAT | {"model": "llama"}, headers=mine) as answer:
        assert answer.status == 200
    await limited.record()
    async with limited.session.get("/v1/models", headers=mine) as answer:
        assert [m["id"] for m in (await answer.json())["data"]] == ["llama"]


@pytest.mark.parametrize("key", ["flt_reader", "flt_admin"])
async def test_a_key_without_the_scope_gets_no_answer(limited: QuotaRig, key: str) -> None:
    replica = await limited.replica()
    async with limited.post(CHAT, headers={"authorization": f"Bearer {key}"}) as answer:
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "scope_missing"
    await limited.record()
    assert replica.asked == []


async def test_a_tenant_reads_its_own_usage(limited: QuotaRig) -> None:
    async with limited.session.get("/v1/usage?by=day&since=7d") as answer:
        assert answer.status == 200
        assert await answer.json() == {"object": "usage", "tenant": "demo", "query": "by=day&since=7d", "data": []}
    async with limited.session.get("/v1/usage", headers={"authorization": "Bearer flt_admin"}) as answer:
        assert answer.status == 403
    async with limited.session.post("/v1/usage") as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
    async with limited.session.get("/v1/usage", headers={"authorization": "Bearer nope"}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/admin/v1/keys", "/admin/v1/tenants", "/admin/v1/usage", "/admin/v1/openapi.json"])
async def test_admin_routes_are_not_here(limited: QuotaRig, path: str) -> None:
    async with limited.session.get(path, headers={"authorization": "Bearer flt_admin"}) as answer:
        assert answer.status == 404
