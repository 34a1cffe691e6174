"""The client against the fake endpoint: every kind of answer becomes the right observation."""

from __future__ import annotations

import itertools
import statistics
import time

import gevent
import pytest

from loadtests.client import ChatClient, Observation, Usage
from loadtests.endpoint import Endpoint

TOKENS = 12
TTFT_S, ITL_S = 0.05, 0.01


@pytest.fixture
def chat(fake):
    def send(model: str, *, stream: bool = True, timeout_s: float = 5.0) -> Observation:
        client = ChatClient(Endpoint.parse(fake.url, "secret"), timeout_s, time.perf_counter)
        messages = [{"role": "user", "content": "one two three"}]
        seen = client.send(
            {"model": model, "messages": messages, "max_tokens": TOKENS, "stream": stream}, f"id-{model}"
        )
        client.close()
        return seen.judge()

    return send


def test_a_stream_is_seen_as_it_was_served(chat):
    seen = chat("m")
    assert seen.error is None and seen.status == 200
    assert len(seen.stamps) == TOKENS
    assert seen.reply() == "wörd " * TOKENS
    assert seen.finish_reason == "length"
    assert seen.usage == Usage(
        prompt_tokens=3,
        cached_tokens=0,
        completion_tokens=TOKENS,
        cost_usd=pytest.approx(3e-6 + TOKENS * 4e-6),
    )
    # The role chunk came at once; the first token is what counts. How late a busy machine makes it is not the client's.
    assert 0.95 * TTFT_S < seen.stamps[0] - seen.sent < 5
    assert seen.stamps == sorted(seen.stamps)
    # The fake's usage chunk comes 100 ms after the last token: the answer ended before it.
    assert seen.ended - seen.stamps[-1] > 0.09


def test_key_and_request_id_travel(chat, fake):
    before = fake.stats()["keys"].get("Bearer secret", 0)
    seen = chat("m")
    assert fake.stats()["keys"]["Bearer secret"] == before + 1
    assert seen.server_request_id == "server-id-m"


def test_reasoning_is_a_first_token_too(chat):
    seen = chat("m!reasoning")
    assert seen.error is None and len(seen.stamps) == TOKENS
    assert seen.reply() == "wörd " * TOKENS


def test_many_tokens_in_one_chunk(chat):
    seen = chat("m!whole-in-one")
    assert len(seen.stamps) == 1 and seen.usage.completion_tokens == TOKENS and seen.gaps() is None


def test_gaps_are_between_content_chunks(chat):
    seen = chat("m")
    gaps, apart = seen.gaps(), [(b - a) * 1e3 for a, b in itertools.pairwise(seen.stamps)]
    assert gaps.count == len(apart) == TOKENS - 1
    assert (gaps.p50, gaps.max) == pytest.approx((statistics.median(apart), max(apart)))
    assert gaps.p50 <= gaps.p99 <= gaps.max


def test_an_answer_in_one_piece(chat):
    seen = chat("m", stream=False)
    assert seen.error is None and len(seen.stamps) == 1
    assert seen.usage.completion_tokens == TOKENS
    assert 0.95 * (TTFT_S + (TOKENS - 1) * ITL_S) < seen.stamps[0] - seen.sent < 2


@pytest.mark.parametrize(
    ("model", "kind", "detail"),
    [
        ("m!truncate", "truncated", "without [DONE]"),
        ("m!reset", "truncated", ""),
        ("m!error-event", "error_event", "the replica died"),
        ("m!bad-json", "bad_json", "{not json"),
        ("m!500", "http_500", "told to fail"),
        ("m!empty", "empty", "no content"),
    ],
)
def test_every_failure_has_its_kind(chat, model, kind, detail):
    seen = chat(model)
    assert (seen.error.kind, detail in seen.error.detail) == (kind, True)


def test_a_broken_stream_keeps_what_had_arrived_however_often_it_is_judged(chat):
    seen = chat("m!truncate")
    error = seen.error
    assert len(seen.stamps) == 2 and len(seen.judge().stamps) == 2 and seen.error == error


def test_a_hanging_request_times_out(chat):
    start = time.perf_counter()
    assert chat("m!hang", timeout_s=0.3).error.kind == "timeout"
    assert time.perf_counter() - start < 2


def test_nobody_there():
    client = ChatClient(Endpoint("127.0.0.1", 1, tls=False), 1.0, time.perf_counter)
    seen = client.send({"model": "m", "messages": [], "max_tokens": 1, "stream": True}, "x")
    assert seen.judge().error.kind == "connect"


def test_requests_do_not_wait_for_each_other(fake):
    client = ChatClient(Endpoint.parse(fake.url, None), 5.0, time.perf_counter)
    body = {"model": "m", "messages": [], "max_tokens": 30, "stream": True}
    jobs = [gevent.spawn(client.send, body, f"p{number}") for number in range(20)]
    start = time.perf_counter()
    gevent.joinall(jobs)
    assert all(job.value.judge().error is None for job in jobs)
    # Each takes 0.34 s at least; one after the other they would take 6.8 s.
    assert time.perf_counter() - start < 6


def test_a_killed_request_is_observed_as_interrupted(fake):
    client = ChatClient(Endpoint.parse(fake.url, None), 5.0, time.perf_counter)
    body = {"model": "m!hang", "messages": [], "max_tokens": 1, "stream": True}
    job = gevent.spawn(client.send, body, "k")
    gevent.sleep(0.1)
    job.kill()
    assert job.value.judge().error.kind == "interrupted"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (None, Usage()),
        ({"prompt_tokens": "3", "completion_tokens": True, "cost": "free"}, Usage()),
        (
            {"prompt_tokens": 3, "prompt_tokens_details": None, "cost": 0},
            Usage(prompt_tokens=3, cost_usd=0.0),
        ),
        ({"prompt_tokens_details": {"cached_tokens": 2}}, Usage(cached_tokens=2)),
    ],
)
def test_usage_takes_only_what_has_the_right_type(block, expected):
    assert Usage.parse(block) == expected
